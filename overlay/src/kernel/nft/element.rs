//! Elements of sets and maps, as bytes.

use super::{FIXED, NAME, family, message};
use crate::kernel::KernelError;
use crate::kernel::socket::Socket;
use crate::kernel::uapi::*;
use crate::kernel::wire::{Message, attribute, attributes, get_text};
use crate::names::Mac;
use crate::plane::{Element, Field, Kind, Object, Objects, Set, put};

/// Registers are 4 bytes wide: each part of a concatenation is padded to that.
const REGISTER: usize = 4;
/// Width of an interface name.
const IFNAMSIZ: usize = 16;
/// A list's length has 16 bits: this many of our largest elements (80 bytes) fit.
const PER_MESSAGE: usize = 400;

fn width(kind: Kind) -> usize {
    match kind {
        Kind::Name | Kind::V6 => IFNAMSIZ,
        Kind::V4 | Kind::Number => 4,
        Kind::Mac => 6,
        Kind::Vni => 3,
        Kind::Port => 2,
        Kind::Protocol => 1,
    }
}

/// The bytes of a key or value. A single component is not padded.
fn encode(fields: &[Field]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in fields {
        match field {
            Field::Name(name) => {
                let mut padded = name.as_bytes().to_vec();
                padded.resize(IFNAMSIZ, 0);
                bytes.extend(padded);
            }
            Field::V4(address) => bytes.extend(address.octets()),
            Field::V6(address) => bytes.extend(address.octets()),
            Field::Mac(mac) => bytes.extend(mac.0),
            Field::Port(port) => bytes.extend(port.to_be_bytes()),
            Field::Protocol(number) => bytes.push(*number),
            Field::Number(number) => bytes.extend(number.to_ne_bytes()),
            Field::Vni(vni) => bytes.extend(&vni.to_be_bytes()[1..]),
        }
        if fields.len() > 1 {
            bytes.resize(bytes.len().next_multiple_of(REGISTER), 0);
        }
    }
    bytes
}

/// The reverse of [`encode`].
fn decode(kinds: &[Kind], bytes: &[u8]) -> Option<Vec<Field>> {
    let mut rest = bytes;
    let mut fields = Vec::new();
    for kind in kinds {
        let width = width(*kind);
        let value = rest.get(..width)?;
        fields.push(match kind {
            Kind::Name => Field::Name(get_text(value)),
            Kind::V4 => Field::V4(<[u8; 4]>::try_from(value).ok()?.into()),
            Kind::V6 => Field::V6(<[u8; 16]>::try_from(value).ok()?.into()),
            Kind::Mac => Field::Mac(Mac(value.try_into().ok()?)),
            Kind::Port => Field::Port(u16::from_be_bytes(value.try_into().ok()?)),
            Kind::Protocol => Field::Protocol(*value.first()?),
            Kind::Number => Field::Number(u32::from_ne_bytes(value.try_into().ok()?)),
            Kind::Vni => {
                let [high, middle, low] = value.try_into().ok()?;
                Field::Vni(u32::from_be_bytes([0, high, middle, low]))
            }
        });
        rest = rest.get(width.next_multiple_of(REGISTER)..).unwrap_or(&[]);
    }
    Some(fields)
}

/// Reads a set. A set that is not there has no elements.
pub(crate) fn dump(
    socket: &mut Socket,
    set: Set,
    objects: &mut Objects,
) -> Result<(), KernelError> {
    let mut question = message(NFT_MSG_GETSETELEM, NLM_F_REQUEST | NLM_F_DUMP, family(set.table()));
    question.text(NFTA_SET_ELEM_LIST_TABLE, NAME).text(NFTA_SET_ELEM_LIST_SET, set.name());
    let elements = socket.dump("nftables elements", &question, |message, rows| {
        let list = attribute(message.body, FIXED, NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or(&[]);
        rows.extend(attributes(list, 0).filter_map(|(_, element)| parse(set, element)));
    });
    match elements {
        Ok(elements) => {
            elements.into_iter().for_each(|element| put(objects, Object::Element(element)));
            Ok(())
        }
        Err(KernelError::Refused { errno: libc::ENOENT, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn parse(set: Set, element: &[u8]) -> Option<Element> {
    let data = |kind| attribute(attribute(element, 0, kind)?, 0, NFTA_DATA_VALUE);
    let key = decode(set.key(), data(NFTA_SET_ELEM_KEY)?)?;
    let value = decode(set.value(), data(NFTA_SET_ELEM_DATA).unwrap_or(&[]))?;
    Some(Element { set, key, value })
}

/// The messages that add (`NFT_MSG_NEWSETELEM`) or remove (`NFT_MSG_DELSETELEM`) elements of one set.
pub(crate) fn change(kind: u16, set: Set, elements: &[&Element]) -> Vec<Message> {
    let create = if kind == NFT_MSG_NEWSETELEM { NLM_F_CREATE } else { 0 };
    let chunks = elements.chunks(PER_MESSAGE).map(|chunk| {
        let mut message = message(kind, NLM_F_REQUEST | NLM_F_ACK | create, family(set.table()));
        message.text(NFTA_SET_ELEM_LIST_TABLE, NAME).text(NFTA_SET_ELEM_LIST_SET, set.name());
        message.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
            for element in chunk {
                write(list, element);
            }
        });
        message
    });
    chunks.collect()
}

fn write(list: &mut Message, element: &Element) {
    list.nest(NFTA_LIST_ELEM, |item| {
        item.nest(NFTA_SET_ELEM_KEY, |key| {
            key.put(NFTA_DATA_VALUE, &encode(&element.key));
        });
        if !element.value.is_empty() {
            item.nest(NFTA_SET_ELEM_DATA, |value| {
                value.put(NFTA_DATA_VALUE, &encode(&element.value));
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concatenations_are_padded_and_read_back() {
        let fields = vec![Field::V4([127, 0, 0, 11].into()), Field::Port(53)];
        assert_eq!(encode(&fields), [127, 0, 0, 11, 0, 53, 0, 0]);
        assert_eq!(decode(&[Kind::V4, Kind::Port], &encode(&fields)), Some(fields));
        assert_eq!(encode(&[Field::Port(4789)]), [0x12, 0xb5]);
        let named = vec![Field::Name("wv1".into()), Field::Mac(Mac([1, 2, 3, 4, 5, 6]))];
        assert_eq!(encode(&named).len(), 24);
        assert_eq!(decode(&[Kind::Name, Kind::Mac], &encode(&named)), Some(named));
        assert_eq!(decode(&[Kind::V6], &[0; 3]), None);
        let sender =
            vec![Field::V4([100, 64, 0, 4].into()), Field::Vni(65536), Field::Mac(Mac([2; 6]))];
        let bytes = [100, 64, 0, 4, 1, 0, 0, 0, 2, 2, 2, 2, 2, 2, 0, 0];
        assert_eq!(encode(&sender), bytes);
        assert_eq!(decode(&[Kind::V4, Kind::Vni, Kind::Mac], &bytes), Some(sender));
    }
}
