//! Is the canary well, and what is its next step?
