//! How many replicas? Every count is priced against what happened before.
