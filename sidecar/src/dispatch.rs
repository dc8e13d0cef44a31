//! Slot first, job last: a free slot is taken before anybody is chosen for it, so that whoever comes until then can
//! still be the most urgent. While the engine is away nobody is chosen, and everybody keeps their place.

use std::sync::Arc;

use engine::EngineState;
use tokio::sync::{Semaphore, watch};

use crate::queue::Queue;

/// Hands slots to waiting requests, for ever; returns when the engine can never serve again.
pub async fn dispatch(queue: Queue, slots: Arc<Semaphore>, mut engine: watch::Receiver<EngineState>) {
    loop {
        if !becomes_ready(&mut engine).await {
            return;
        }
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        if matches!(*engine.borrow(), EngineState::Ready(_)) {
            queue.admit_next(slot).await;
        }
    }
}

/// Waits for a loaded model; `false` when there will be none.
pub async fn becomes_ready(engine: &mut watch::Receiver<EngineState>) -> bool {
    let settled = engine.wait_for(|state| {
        matches!(state, EngineState::Ready(_) | EngineState::Failed { .. } | EngineState::Stopped)
    });
    settled.await.is_ok_and(|state| matches!(*state, EngineState::Ready(_)))
}
