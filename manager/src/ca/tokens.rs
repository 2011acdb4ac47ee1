//! Checking join tokens: which role does the bearer get, if any?

use subtle::{Choice, ConstantTimeEq as _};
use thiserror::Error;
use weft_model::Time;
use weft_model::object::{ExtraToken, Secret, Tokens};
use weft_model::spec::Role;
use weft_proto::tls::{JoinToken, ca_digest};

/// What a good token gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// What the node becomes.
    pub role: Role,
    /// The token beside the standing ones that was shown; joining takes one of its uses.
    pub extra: Option<Secret>,
}

/// Why a well-formed token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum JoinRefused {
    /// Its digest is of another root. That half of a token is no secret, so this may be said.
    #[error("the join token is of another cluster")]
    OtherCluster,
    /// The secret is not good. The bearer does not learn why: all reasons read the same.
    #[error("the join token is not accepted")]
    Secret(RefusalReason),
}

/// Why a secret is not good; for the managers' own log only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// No such token, or one that was rotated away.
    Unknown,
    /// Its time is over.
    Expired,
    /// As many nodes as it was for have joined.
    UsedUp,
}

/// A fresh secret from the system's randomness.
pub fn new_secret() -> Secret {
    rand::random()
}

/// The token that an operator hands out for `secret`.
pub fn join_token(root_pem: &str, secret: Secret) -> JoinToken {
    JoinToken { ca_digest: ca_digest(root_pem), secret }
}

/// Finds the token that was shown. The time it takes does not depend on how much of a secret is
/// right, nor on which one it is.
pub fn check_token(
    shown: &JoinToken,
    root_pem: &str,
    tokens: &Tokens,
    now: Time,
) -> Result<Grant, JoinRefused> {
    if shown.ca_digest != ca_digest(root_pem) {
        return Err(JoinRefused::OtherCluster);
    }
    let mut found = Err(RefusalReason::Unknown);
    for (secret, outcome) in candidates(tokens, now) {
        if is_shown(shown, &secret).into() {
            found = outcome;
        }
    }
    found.map_err(JoinRefused::Secret)
}

/// Each secret with what it gives at `now`. The standing ones come last, so that they count if a
/// secret should stand twice.
fn candidates(
    tokens: &Tokens,
    now: Time,
) -> impl Iterator<Item = (Secret, Result<Grant, RefusalReason>)> {
    let extra = tokens.extra.iter().map(move |token| (token.secret, extra_grant(token, now)));
    let standing = [(tokens.worker, Role::Worker), (tokens.manager, Role::Manager)]
        .map(|(secret, role)| (secret, Ok(Grant { role, extra: None })));
    extra.chain(standing)
}

fn extra_grant(token: &ExtraToken, now: Time) -> Result<Grant, RefusalReason> {
    if token.expires.is_some_and(|end| now >= end) {
        return Err(RefusalReason::Expired);
    }
    if token.uses == Some(0) {
        return Err(RefusalReason::UsedUp);
    }
    Ok(Grant { role: token.role, extra: Some(token.secret) })
}

fn is_shown(shown: &JoinToken, secret: &Secret) -> Choice {
    shown.secret.ct_eq(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";
    const NOW: Time = Time(1_000);

    fn extra(first: u8, role: Role, expires: Option<u64>, uses: Option<u32>) -> ExtraToken {
        ExtraToken { secret: [first; 16], role, expires: expires.map(Time), uses }
    }

    fn tokens() -> Tokens {
        let extra = vec![
            extra(3, Role::Manager, Some(1_001), None),
            extra(4, Role::Worker, Some(1_000), None),
            extra(5, Role::Worker, None, Some(1)),
            extra(6, Role::Worker, None, Some(0)),
        ];
        Tokens { worker: [1; 16], manager: [2; 16], extra }
    }

    fn check(secret: Secret) -> Result<Grant, JoinRefused> {
        check_token(&join_token(ROOT, secret), ROOT, &tokens(), NOW)
    }

    #[test]
    fn the_secret_decides_the_role() {
        let cases = [
            (1, Role::Worker, None),
            (2, Role::Manager, None),
            (3, Role::Manager, Some([3; 16])),
            (5, Role::Worker, Some([5; 16])),
        ];
        for (first, role, extra) in cases {
            assert_eq!(check([first; 16]), Ok(Grant { role, extra }), "secret {first}");
        }
    }

    #[test]
    fn refusals_read_the_same_and_are_told_apart_inside() {
        let mut nearly = [1; 16];
        nearly[15] ^= 1;
        let cases = [
            ([0; 16], RefusalReason::Unknown),
            (nearly, RefusalReason::Unknown),
            ([4; 16], RefusalReason::Expired),
            ([6; 16], RefusalReason::UsedUp),
        ];
        for (secret, reason) in cases {
            let refused = check(secret).unwrap_err();
            assert_eq!(refused, JoinRefused::Secret(reason));
            assert_eq!(refused.to_string(), "the join token is not accepted");
        }
    }

    #[test]
    fn a_good_secret_of_another_cluster_is_refused() {
        let shown = join_token("another root", [1; 16]);
        assert_eq!(check_token(&shown, ROOT, &tokens(), NOW), Err(JoinRefused::OtherCluster));
    }
}
