//! Why something does not work: a reason from a closed list, and a sentence that names the field and the cure.
//! Pure; the reasons are also the values of `reason` in conditions.

use std::fmt;

use crds::report;

/// Longest message that goes into a condition or an event. Longer ones come from other programs and are cut.
const MESSAGE_CHARS_MAX: usize = 900;

/// Something that keeps a model from being served as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// From the closed list.
    pub reason: Reason,
    /// What was found, and the cure.
    pub message: String,
}

/// All reasons that a condition of ours can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    // The spec cannot be acted on.
    /// The pool does not exist.
    PoolNotFound,
    /// The pool's policy forbids the source.
    SourceNotAllowed,
    /// The pool's policy demands a digest.
    DigestRequired,
    /// An object with a name that we need belongs to somebody else.
    NameConflict,
    /// The API server refused one of our objects.
    Rejected,
    /// A schedule of spec.autoscaling cannot be read.
    InvalidSchedule,
    /// The ConfigMap with golden prompts does not exist.
    GoldenPromptsNotFound,
    /// Golden prompts cannot be read.
    GoldenPromptsInvalid,

    // Pods cannot be made or placed.
    /// Fewer replicas run than were asked for.
    CapacityLimited,
    /// No node can take a pod.
    InsufficientCapacity,
    /// The claim for model files is missing or unbound.
    ClaimUnavailable,
    /// Quota, admission or pod security refuse the pods.
    PodsRefused,
    /// The image cannot be pulled.
    ImagePullFailed,
    /// A Secret or key that the pod needs is missing.
    ContainerConfigInvalid,

    // The pod says why it cannot serve.
    /// No answer from the source.
    SourceUnreachable,
    /// No such file at the source.
    SourceNotFound,
    /// The source refused.
    SourceForbidden,
    /// The file is something else.
    NotGGUF,
    /// The file ends before its tensors do.
    ModelTruncated,
    /// The file cannot be loaded.
    ModelInvalid,
    /// Another SHA-256 than declared.
    DigestMismatch,
    /// Not enough memory.
    DoesNotFit,
    /// The model volume is full.
    StorageFull,
    /// The engine keeps dying.
    EngineLost,

    // It runs, and yet.
    /// Too few golden prompts were answered as expected.
    GoldenPromptsFailed,
    /// No token came through the gateway.
    ProbeFailed,
    /// No pod of the pool's gateway answers.
    GatewayUnavailable,
    /// `spec.killSwitch` turns all requests away.
    KillSwitch,
    /// Fewer pods are ready than there should be.
    PodsNotReady,

    // On the way, or as it should be.
    /// `spec.suspend` is true.
    Suspended,
    /// `spec.replicas` is 0.
    NoReplicas,
    /// No pod runs because nothing has come; the first request starts one.
    ScaledToZero,
    /// An older object of the same name is being deleted.
    WaitingForDeletion,
    /// Pods wait for a node.
    Scheduling,
    /// Volumes and image.
    Starting,
    /// The model is fetched.
    Downloading,
    /// Digest and structure are checked.
    Verifying,
    /// The engine loads the model.
    Loading,
    /// The first token is generated.
    WarmingUp,
    /// One token is awaited.
    Proving,
    /// More replicas are on their way.
    Scaling,
    /// Nothing changes.
    Stable,
    /// A canary serves its share.
    CanaryServing,
    /// A canary serves its share and is judged.
    CanaryAnalysing,
    /// A canary serves its share until a person decides.
    CanaryPaused,
    /// A canary takes all traffic.
    CanaryPromoting,
    /// There is no room for a canary.
    CapacityUnavailable,
    /// A canary gives its traffic back and goes.
    RollingBack,
    /// A canary was judged worse.
    RolledBack,
    /// A person, a deadline or a failed start has ended a rollout.
    RolloutAborted,
    /// `spec.killSwitch` has ended a rollout.
    RolloutKilled,
    /// The spec can be acted on.
    Valid,
    /// The file has the declared digest.
    DigestVerified,
    /// The file is there; no digest was declared.
    Fetched,
    /// All pods have a node.
    PodsScheduled,
    /// At least one pod serves.
    PodsReady,
    /// One token came through the gateway.
    ServedToken,

    // How many pods there are.
    /// The operator decides.
    Deciding,
    /// The operator says what it would do.
    Observing,
    /// Nobody changes the number.
    Paused,
    /// `spec.replicas` says it.
    External,
    /// No bound keeps it from what it wants.
    WithinBounds,
    /// The maximum, the user's or a schedule's.
    MaxReplicasReached,
    /// The minimum, the user's or a schedule's.
    MinReplicasReached,
    /// A rise that is not proven yet.
    SurgeLimited,
    /// A pod alone misses a goal for answers.
    GoalOutOfReach,
    /// A pod alone meets all goals for answers.
    GoalsWithinReach,
    /// As many answers come in time as wanted.
    GoalsMet,
    /// Fewer answers come in time than wanted.
    GoalsMissed,
    /// All who report have done so lately.
    ReportsFresh,
    /// Somebody who should report is silent.
    ReportsStale,

    // Whether the canary is well.
    /// Nothing to say.
    Watching,
    /// Slower than tolerated is ruled out.
    WithinTolerance,
    /// Tokens take longer to generate.
    DecodeSlower,
    /// Prompts take longer.
    PrefillSlower,
    /// The first token comes later though nothing was ahead of it.
    UnqueuedTtftSlower,
    /// More first attempts fail.
    MoreErrors,
    /// More requests need over twice the work predicted.
    EngineTail,
    /// Cached prefixes are missed though they were owed.
    CacheReuseLost,
    /// Requests wait for a slot though one should be free.
    FewerSlots,
    /// A single pod is slow.
    ConfirmingPod,
    /// Canary users miss more objectives.
    UnequalExperience,
    /// Answers are longer or shorter.
    OutputLengthChanged,
    /// The canary gets another share than it should.
    TrafficSkew,
    /// No ready stable pod on the same kind of node.
    NoComparableControl,
    /// Pods are too few to prove that nothing is slower than tolerated.
    TooFewPods,
    /// They are enough.
    EnoughPods,
    /// A step of the canary ended by its time, without a proof.
    StepUnproven,

    // Who is told.
    /// All receivers exist.
    ReceiversKnown,
    /// The installation has no receiver of that name.
    ReceiverNotFound,
    /// The receiver's description cannot be read.
    ReceiverInvalid,

    /// Not known yet.
    Unknown,
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

impl From<report::Reason> for Reason {
    fn from(reason: report::Reason) -> Self {
        match reason {
            report::Reason::SourceUnreachable => Self::SourceUnreachable,
            report::Reason::SourceNotFound => Self::SourceNotFound,
            report::Reason::SourceForbidden => Self::SourceForbidden,
            report::Reason::NotGGUF => Self::NotGGUF,
            report::Reason::ModelTruncated => Self::ModelTruncated,
            report::Reason::ModelInvalid => Self::ModelInvalid,
            report::Reason::DigestMismatch => Self::DigestMismatch,
            report::Reason::DoesNotFit => Self::DoesNotFit,
            report::Reason::StorageFull => Self::StorageFull,
            report::Reason::EngineLost => Self::EngineLost,
        }
    }
}

impl Problem {
    /// A problem with a message that is fit for a condition: one line, bounded.
    pub fn new(reason: Reason, message: impl AsRef<str>) -> Self {
        Self { reason, message: one_line(message.as_ref()) }
    }
}

/// Control characters become spaces, and what is too long ends in an ellipsis: parts of the text come from pods
/// and from the kubelet.
pub fn one_line(text: &str) -> String {
    let mut line: String = text
        .trim()
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(MESSAGE_CHARS_MAX)
        .collect();
    if text.trim().chars().nth(MESSAGE_CHARS_MAX).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_bounded_line() {
        assert_eq!(one_line(" a\nb\u{1b}[0m "), "a b [0m");
        let long = one_line(&"x".repeat(5_000));
        assert_eq!(long.chars().count(), MESSAGE_CHARS_MAX + 1);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn a_reason_is_written_like_its_name() {
        assert_eq!(Reason::NotGGUF.to_string(), "NotGGUF");
        assert_eq!(Reason::from(report::Reason::DigestMismatch).to_string(), "DigestMismatch");
    }
}
