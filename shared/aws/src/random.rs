//! The one source of randomness of the shell.

use std::time::Duration;

use backups_core::id::Nonce;

/// 32 hex digits that nobody drew before: marks a write, a backup, a request.
/// Not a secret (see `table::keys::Secret`).
pub fn nonce() -> Nonce {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that draws nonces; seeded per thread by a simulation"
    )]
    let value = fastrand::u128(..);
    Nonce(format!("{value:032x}"))
}

/// Between 0 and `span`, so that retries do not march in step.
pub fn jitter(span: Duration) -> Duration {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that draws jitter; seeded per thread by a simulation"
    )]
    let share = fastrand::f64();
    span.mul_f64(share)
}
