//! What a change of the kernel was of, in one word.

use weft_overlay::Object;

/// The word, of a fixed list.
pub(crate) fn kind(object: &Object) -> &'static str {
    match object {
        Object::Namespace => "namespace",
        Object::Table(..) => "nft-table",
        Object::Element(_) => "nft-element",
        Object::Passage(_) => "nft-passage",
        Object::Rule(_) => "rule",
        Object::Barrier { .. } | Object::Route { .. } => "route",
        Object::Switch { .. } | Object::SwitchPort { .. } => "switch",
        Object::Link(..) => "link",
        Object::Secret { .. } | Object::Peer(_) => "wireguard",
        Object::Sysctl(..) => "sysctl",
        Object::Address(..) => "address",
        Object::Fdb(_) => "fdb",
        Object::Neighbour { .. } => "neighbour",
        Object::Wire(_) => "engine",
        Object::Flows { .. } | Object::Datagrams { .. } => "flow",
    }
}
