//! The statistics that the judgements stand on.
