//! The `tracing` feature: every event, and a span around each piece of background work and around opening. Without the
//! feature all of this compiles to nothing. Gets and puts are never traced.

/// Keeps a span open as long as it lives.
#[must_use]
pub(crate) struct Span(
    #[cfg(feature = "tracing")]
    #[expect(dead_code, reason = "dropping it is its use")]
    tracing::span::EnteredSpan,
);

#[cfg(feature = "tracing")]
mod on {
    use tracing::{Level, debug_span, event, info_span};

    use crate::lsm::events::Event;
    use crate::lsm::trace::Span;

    pub(crate) fn job(job: &'static str, stripe: Option<usize>) -> Span {
        Span(debug_span!(target: "kstone", "job", job, stripe).entered())
    }

    pub(crate) fn open(path: &std::path::Path, read_only: bool) -> Span {
        Span(info_span!(target: "kstone", "open", path = %path.display(), read_only).entered())
    }

    pub(crate) fn event(what: &Event) {
        macro_rules! at {
            ($level:expr, $name:literal $(, $field:ident = $value:expr)*) => {
                event!(target: "kstone", $level, $($field = $value,)* $name)
            };
        }
        let micros = |time: &std::time::Duration| time.as_micros() as u64;
        match what {
            Event::Opened { created, clean, read_only, replayed_records, replayed_bytes, duration } => {
                at!(
                    Level::INFO,
                    "opened",
                    created = created,
                    clean = clean,
                    read_only = read_only,
                    replayed_records = replayed_records,
                    replayed_bytes = replayed_bytes,
                    micros = micros(duration)
                );
            }
            Event::Flush { stripe, records, bytes, duration } => {
                at!(
                    Level::DEBUG,
                    "flush",
                    stripe = stripe,
                    records = records,
                    bytes = bytes,
                    micros = micros(duration)
                );
            }
            Event::Compaction {
                stripe,
                reason,
                runs,
                ssts,
                bytes_in,
                bytes_out,
                tombstones_dropped,
                duration,
            } => {
                at!(
                    Level::DEBUG,
                    "compaction",
                    stripe = stripe,
                    reason = tracing::field::debug(reason),
                    runs = runs,
                    ssts = ssts,
                    bytes_in = bytes_in,
                    bytes_out = bytes_out,
                    tombstones_dropped = tombstones_dropped,
                    micros = micros(duration)
                );
            }
            Event::Checkpoint { ssts, log_bytes_freed, duration } => {
                at!(
                    Level::DEBUG,
                    "checkpoint",
                    ssts = ssts,
                    log_bytes_freed = log_bytes_freed,
                    micros = micros(duration)
                );
            }
            Event::Stall { reason, writes, duration } => {
                at!(
                    Level::WARN,
                    "stall",
                    reason = reason.describe(),
                    writes = writes,
                    micros = micros(duration)
                );
            }
            Event::DiskFull { detail, .. } => at!(Level::ERROR, "disk full", detail = detail.as_str()),
            Event::BackgroundError { job, error } => {
                at!(Level::ERROR, "background error", job = job.as_str(), error = error.as_str());
            }
            Event::Poisoned { cause } => at!(Level::ERROR, "poisoned", cause = cause.as_str()),
            Event::ConfigChanged { changes } => {
                at!(Level::INFO, "settings changed", changes = tracing::field::debug(changes));
            }
            Event::Closed { clean } => at!(Level::INFO, "closed", clean = clean),
        }
    }
}

#[cfg(not(feature = "tracing"))]
mod on {
    use crate::lsm::events::Event;
    use crate::lsm::trace::Span;

    pub(crate) fn job(_: &'static str, _: Option<usize>) -> Span {
        Span()
    }

    pub(crate) fn open(_: &std::path::Path, _: bool) -> Span {
        Span()
    }

    pub(crate) fn event(_: &Event) {}
}

pub(crate) use on::{event, job, open};
