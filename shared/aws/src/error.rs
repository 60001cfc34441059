//! The SDK's errors, sorted by what they say about the request.

use std::error::Error;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use backups_core::operation::{CallError, is_full};

/// Codes that mean "not now": nothing was done, and the same call may pass later.
/// Source: EC2 API reference, "Error codes"; EC2 developer guide, "Request throttling".
const THROTTLED: &[&str] = &[
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "TooManyRequestsException",
    "ProvisionedThroughputExceededException",
    "SlowDown",
    "SnapshotCreationPerVolumeRateExceeded",
    "ConcurrentSnapshotLimitExceeded",
    "PendingSnapshotLimitExceeded",
];

/// Sorts an error of a call.
///
/// But for a want of capacity a 5xx, a broken connection, and a time-out all mean that the
/// call may have happened. Only a connection that never came about proves that it did not.
pub fn sort<E>(error: &SdkError<E, HttpResponse>) -> CallError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ConstructionFailure(_) => CallError::NotApplied(told(error)),
        SdkError::DispatchFailure(_) if never_connected(error) => {
            CallError::NotApplied(told(error))
        }
        SdkError::ServiceError(service) => {
            let code = service.err().code().unwrap_or("Unknown").to_owned();
            let status = service.raw().status();
            let message = service.err().message().unwrap_or("no message").to_owned();
            if THROTTLED.contains(&code.as_str()) || status.as_u16() == 429 {
                CallError::Throttled { code }
            } else if status.is_client_error() && status.as_u16() != 408 || is_full(&code) {
                CallError::Rejected { code, message }
            } else {
                CallError::Unknown(format!("HTTP {status}, {code}: {message}"))
            }
        }
        _ => CallError::Unknown(told(error)),
    }
}

/// The error with its causes, in one line.
fn told(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = inner.source();
    }
    text
}

/// Whether the connection was refused before a byte of the request was sent.
fn never_connected(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::ConnectionRefused
        {
            return true;
        }
        cause = inner.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use aws_sdk_eventbridge::operation::put_events::PutEventsError;
    use aws_smithy_types::body::SdkBody;
    use aws_smithy_types::error::ErrorMetadata;

    use super::*;

    fn sorted(status: u16, code: &str) -> CallError {
        let error = PutEventsError::generic(ErrorMetadata::builder().code(code).build());
        let status = status.try_into().expect("a status");
        sort(&SdkError::service_error(error, HttpResponse::new(status, SdkBody::empty())))
    }

    #[test]
    fn a_want_of_capacity_is_certain_though_its_status_is_500() {
        for code in ["InsufficientInstanceCapacity", "InsufficientVolumeCapacity"] {
            assert!(matches!(sorted(500, code), CallError::Rejected { .. }), "{code}");
        }
        assert!(matches!(sorted(500, "InternalError"), CallError::Unknown(_)));
        assert!(matches!(sorted(400, "IncorrectState"), CallError::Rejected { .. }));
        assert!(matches!(sorted(503, "RequestLimitExceeded"), CallError::Throttled { .. }));
    }
}
