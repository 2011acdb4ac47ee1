//! Who may be in the cluster: its certificate authority and its join tokens.
//!
//! The authority is a root certificate and its key, made when the cluster is, and kept in the
//! replicated state as two PEM texts; whichever manager leads makes an [`Authority`] of them to
//! sign. A node makes its own key and sends a request; what stands in the certificate is decided
//! here, from the token or from the node's record, and never taken from the request.

pub mod authority;
pub mod csr;
pub mod membership;
pub mod own;
pub mod throttle;
pub mod tokens;

pub use authority::{Authority, AuthorityError, IssueError, Issued, Subject};
pub use membership::{ProofError, prove_member};
pub use own::{OwnError, sign_own};
pub use throttle::Throttle;
pub use tokens::{Grant, JoinRefused, RefusalReason, check_token, join_token, new_secret};
