//! Whether a request or connection is one of those that are logged, or whose local reply is rewritten.

use crate::{
    config::access_log::Condition,
    http::{request_headers::authority, response_flags::ResponseFlags, route::matcher::header_matches},
    substitution::{Context, Subject, grpc_status},
};

pub fn holds(condition: &Condition, context: &Context<'_>) -> bool {
    match condition {
        // Before there is a response its status counts as 0, and 0 is no status to compare with.
        Condition::StatusCode(comparison) => comparison.holds(status(context)),
        Condition::Duration(comparison) => comparison.holds(elapsed_ms(context)),
        Condition::NotHealthCheck => match context.subject {
            Subject::Http(exchange) => !exchange.is_health_check.get(),
            Subject::Tcp(_) | Subject::Connection(_) => true,
        },
        Condition::Traceable => false,
        Condition::Sampled(share) => context.subject.downstream().worker.with_random(|random| share.draw(random)),
        Condition::All(conditions) => conditions.iter().all(|condition| holds(condition, context)),
        Condition::Any(conditions) => conditions.iter().any(|condition| holds(condition, context)),
        Condition::Header(matcher) => {
            context.request.is_some_and(|head| header_matches(matcher, head, authority(head)))
        }
        Condition::ResponseFlag(wanted) => {
            let flags = flags(context);
            wanted.map_or(flags != ResponseFlags::default(), |wanted| flags.intersects(wanted))
        }
        Condition::GrpcStatus { statuses, exclude } => grpc_status::of(context.trailers, context.response)
            .is_some_and(|status| statuses.contains(&status) != *exclude),
        Condition::MetadataAbsent { matches } => *matches,
        Condition::LogType { types, exclude } => types.contains(&context.subject.log_type()) != *exclude,
    }
}

fn status(context: &Context<'_>) -> u64 {
    match context.subject {
        Subject::Http(exchange) => exchange.status.get().map_or(0, |status| status.as_u16().into()),
        Subject::Tcp(_) | Subject::Connection(_) => 0,
    }
}

fn elapsed_ms(context: &Context<'_>) -> u64 {
    let elapsed = match context.subject {
        Subject::Http(exchange) => exchange.started.elapsed(),
        Subject::Tcp(session) => session.started.elapsed(),
        Subject::Connection(downstream) => downstream.started.elapsed(),
    };
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

fn flags(context: &Context<'_>) -> ResponseFlags {
    match context.subject {
        Subject::Http(exchange) => exchange.flags.get(),
        Subject::Tcp(session) => session.flags.get(),
        Subject::Connection(downstream) => downstream.flags.get(),
    }
}
