//! From the flags of a health check to its spec: of what is new, and of what is changed. Pure.

use std::time::Duration;

use weft_proto::v1;

use crate::{args::run::HealthFlags, error::CliError, wire::duration};

/// First words of a health test, Docker's.
const NO_TEST: &str = "NONE";
const SHELL_TEST: &str = "CMD-SHELL";

/// Of a service, where the user says nothing.
const SERVICE_INTERVAL: Duration = Duration::from_secs(5);
const SERVICE_TIMEOUT: Duration = Duration::from_secs(2);

/// The same for a service, whose tasks are waited for: it has shorter spans of its own.
///
/// # Errors
/// As of [`changed`].
pub fn of_service(
    known: Option<v1::Health>,
    flags: &HealthFlags,
) -> Result<Option<v1::Health>, CliError> {
    let mut health = changed(known, flags)?;
    if let Some(health) = health.as_mut().filter(|health| checks(health)) {
        health.interval.get_or_insert(duration(SERVICE_INTERVAL));
        health.timeout.get_or_insert(duration(SERVICE_TIMEOUT));
    }
    Ok(health)
}

fn checks(health: &v1::Health) -> bool {
    health.test.first().is_some_and(|word| word != NO_TEST)
}

/// The health check after the flags; `known` is the one before, if something is changed.
///
/// # Errors
/// Flags that contradict each other, and spans with nothing to check.
pub fn changed(
    known: Option<v1::Health>,
    flags: &HealthFlags,
) -> Result<Option<v1::Health>, CliError> {
    let spans = [
        ("--health-interval", flags.health_interval.is_some()),
        ("--health-timeout", flags.health_timeout.is_some()),
        ("--health-retries", flags.health_retries.is_some()),
        ("--health-start-period", flags.health_start_period.is_some()),
    ];
    let span = spans.iter().find(|(_, given)| *given).map(|(flag, _)| *flag);
    if flags.no_healthcheck {
        return match span {
            Some(flag) => Err(CliError::usage(flag, "not with --no-healthcheck")),
            None => Ok(Some(v1::Health { test: vec![NO_TEST.to_owned()], ..Default::default() })),
        };
    }
    if flags.health_cmd.is_none() && span.is_none() {
        return Ok(known);
    }
    // As in Docker, an empty command takes the check away.
    let cleared = known.is_some() && flags.health_cmd.as_deref() == Some("");
    if cleared && span.is_none() {
        return Ok(None);
    }
    let mut health = known.filter(|health| checks(health) && !cleared).unwrap_or_default();
    if let Some(line) = flags.health_cmd.as_ref().filter(|_| !cleared) {
        health.test = vec![SHELL_TEST.to_owned(), line.clone()];
    }
    if let Some(flag) = span.filter(|_| health.test.is_empty()) {
        return Err(CliError::usage(flag, "an image has no check of its own: needs --health-cmd"));
    }
    let times = [
        (flags.health_interval, &mut health.interval),
        (flags.health_timeout, &mut health.timeout),
        (flags.health_start_period, &mut health.start_period),
    ];
    for (given, field) in times {
        if let Some(span) = given {
            *field = Some(duration(span));
        }
    }
    if let Some(retries) = flags.health_retries {
        health.retries = retries;
    }
    Ok(Some(health))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(cmd: Option<&str>, interval: Option<u64>) -> HealthFlags {
        HealthFlags {
            health_cmd: cmd.map(str::to_owned),
            health_interval: interval.map(Duration::from_secs),
            ..Default::default()
        }
    }

    fn known() -> Option<v1::Health> {
        changed(None, &flags(Some("test -e /ok"), Some(5))).unwrap()
    }

    #[test]
    fn what_is_not_given_stays() {
        assert_eq!(changed(None, &flags(None, None)).unwrap(), None);
        assert_eq!(changed(known(), &flags(None, None)).unwrap(), known());
        let slower = changed(known(), &flags(None, Some(7))).unwrap().unwrap();
        assert_eq!(slower.test, ["CMD-SHELL", "test -e /ok"]);
        assert_eq!(slower.interval.unwrap().seconds, 7);
        let other = changed(known(), &flags(Some("true"), None)).unwrap().unwrap();
        assert_eq!((other.test[1].as_str(), other.interval.unwrap().seconds), ("true", 5));
        assert_eq!(changed(known(), &flags(Some(""), None)).unwrap(), None);
    }

    #[test]
    fn services_have_spans_of_their_own() {
        let new = of_service(None, &flags(Some("true"), Some(9))).unwrap().unwrap();
        assert_eq!((new.interval.unwrap().seconds, new.timeout.unwrap().seconds), (9, 2));
        let off = HealthFlags { no_healthcheck: true, ..Default::default() };
        assert_eq!(of_service(None, &off).unwrap().unwrap().interval, None);
        assert_eq!(of_service(None, &flags(None, None)).unwrap(), None);
    }

    #[test]
    fn checks_are_turned_off_and_on_again() {
        let off = HealthFlags { no_healthcheck: true, ..Default::default() };
        let none = changed(known(), &off).unwrap();
        assert_eq!(none.as_ref().unwrap().test, ["NONE"]);
        let on = changed(none.clone(), &flags(Some("true"), None)).unwrap().unwrap();
        assert_eq!((on.test.len(), on.interval), (2, None));
        for (known, flags) in [
            (None, flags(None, Some(1))),
            (none, flags(None, Some(1))),
            (known(), flags(Some(""), Some(1))),
            (known(), HealthFlags { health_retries: Some(1), ..off }),
        ] {
            assert!(changed(known, &flags).is_err(), "{flags:?}");
        }
    }
}
