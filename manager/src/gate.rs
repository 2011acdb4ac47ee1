//! The gate in front of every service: who calls, whether he may, and where the call is answered.
//!
//! One layer stands before all routes of both listeners, so that no handler has to know of
//! certificates, roles or forwarding. **Architecture invariant:** whether a method may be called is
//! decided by [`RULES`] alone; a method without a rule does not exist.

mod caller;
mod ending;
mod forward;
mod layer;
mod rules;

pub use caller::{Caller, Credential, Denied, Holder, Origin};
pub use layer::{Gate, GateService, Outlook, Outlooks};
pub use rules::{Callers, Place, RULES, Rule, Shape, rule_of};

/// The decision for one caller and one method: what the table says of him as the state sees him.
///
/// # Errors
/// [`Denied`] with the reason.
pub fn admit(
    rule: &Rule,
    credential: &Credential,
    cluster: Option<&str>,
    state: Option<&weft_model::State>,
) -> Result<Caller, Denied> {
    let caller = caller::judge(credential, cluster, state)?;
    if rule.callers.admit(&caller) {
        return Ok(caller);
    }
    Err(match caller {
        Caller::Anonymous => Denied::NoCertificate,
        Caller::Removed(node) => Denied::NotMember { node: node.to_string() },
        Caller::Local | Caller::Manager(_) | Caller::Worker(_) | Caller::Client(_) => {
            Denied::NotAllowed { caller: caller.word(), method: rule.path }
        }
    })
}
