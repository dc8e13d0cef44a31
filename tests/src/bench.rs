//! The gateway's benchmark: stub backends that speak the OpenAI stream, a load generator lean enough to share two
//! cores with what it measures, and the routers under test as child processes. Everything stays on the loopback device.

pub mod goals;
pub mod load;
pub mod process;
pub mod response;
pub mod router;
pub mod samples;
pub mod scenario;
pub mod stub;
