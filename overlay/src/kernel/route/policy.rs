//! Routes and policy rules with our protocol number.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Indexes;
use crate::kernel::KernelError;
use crate::kernel::socket::Socket;
use crate::kernel::uapi::*;
use crate::kernel::wire::{Message, attribute, family_byte, get_ip, get_text, get_u32, ip_bytes};
use crate::names::PROTOCOL;
use crate::plane::{Family, Object, Objects, Rule, RuleAction, RuleMatch, put};

/// Length of `struct rtmsg` and `struct fib_rule_hdr`.
const FIXED: usize = 12;
const CHANGE: u16 = NLM_F_REQUEST | NLM_F_ACK;

struct RawRoute {
    table: u32,
    net: IpNet,
    kind: u8,
    via: Option<IpAddr>,
    oif: Option<u32>,
    source: Option<IpAddr>,
}

/// The routes that carry our protocol number.
fn dump(socket: &mut Socket) -> Result<Vec<RawRoute>, KernelError> {
    let question = Message::new(RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, &[0; FIXED]);
    socket.dump("routes", &question, |message, rows| {
        if message.kind == RTM_NEWROUTE && message.body.get(5) == Some(&PROTOCOL) {
            rows.extend(parse(message.body));
        }
    })
}

fn parse(body: &[u8]) -> Option<RawRoute> {
    let any: IpAddr = match i32::from(*body.first()?) {
        libc::AF_INET => std::net::Ipv4Addr::UNSPECIFIED.into(),
        libc::AF_INET6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let get = |kind| attribute(body, FIXED, kind);
    let dst = get(RTA_DST).and_then(get_ip).unwrap_or(any);
    Some(RawRoute {
        table: get(RTA_TABLE)
            .and_then(|value| get_u32(value, 0))
            .unwrap_or(u32::from(*body.get(4)?)),
        net: IpNet::new(dst, *body.get(1)?).ok()?,
        kind: *body.get(7)?,
        via: get(RTA_GATEWAY).and_then(get_ip),
        oif: get(RTA_OIF).and_then(|value| get_u32(value, 0)),
        source: get(RTA_PREFSRC).and_then(get_ip),
    })
}

/// Our `prohibit` routes.
pub(crate) fn barriers(socket: &mut Socket, objects: &mut Objects) -> Result<(), KernelError> {
    for route in dump(socket)? {
        if route.kind == RTN_PROHIBIT {
            put(objects, Object::Barrier { table: route.table, net: route.net });
        }
    }
    Ok(())
}

/// Our routes to devices.
pub(crate) fn defaults(
    socket: &mut Socket,
    ours: &Indexes,
    objects: &mut Objects,
) -> Result<(), KernelError> {
    for route in dump(socket)? {
        let unicast = route.kind == RTN_UNICAST && route.table == u32::from(RT_TABLE_MAIN);
        if let Some(link) = route.oif.and_then(|oif| ours.name(oif)).filter(|_| unicast) {
            let RawRoute { net, via, source, .. } = route;
            put(objects, Object::Route { net, via, link: link.to_owned(), source });
        }
    }
    Ok(())
}

fn fixed(net: IpNet, kind: u8, table: u8) -> Vec<u8> {
    // Scope universe; the kernel ignores it for deletion and prohibit routes.
    vec![family_byte(net.addr()), net.prefix_len(), 0, 0, table, PROTOCOL, 0, kind, 0, 0, 0, 0]
}

fn barrier(kind: u16, flags: u16, table: u32, net: IpNet) -> Message {
    let mut message = Message::new(kind, CHANGE | flags, &fixed(net, RTN_PROHIBIT, 0));
    message.put(RTA_DST, &ip_bytes(net.addr())).u32(RTA_TABLE, table);
    message
}

pub(crate) fn add_barrier(table: u32, net: IpNet) -> Message {
    barrier(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, table, net)
}

pub(crate) fn delete_barrier(table: u32, net: IpNet) -> Message {
    barrier(RTM_DELROUTE, 0, table, net)
}

fn route(kind: u16, flags: u16, net: IpNet, via: Option<IpAddr>, index: u32) -> Message {
    let mut header = fixed(net, RTN_UNICAST, RT_TABLE_MAIN);
    if via.is_none() {
        header[6] = RT_SCOPE_LINK;
    }
    let mut message = Message::new(kind, CHANGE | flags, &header);
    if net.prefix_len() > 0 {
        message.put(RTA_DST, &ip_bytes(net.addr()));
    }
    if let Some(via) = via {
        message.put(RTA_GATEWAY, &ip_bytes(via));
    }
    message.u32(RTA_OIF, index);
    message
}

pub(crate) fn add_route(
    net: IpNet,
    via: Option<IpAddr>,
    index: u32,
    source: Option<IpAddr>,
) -> Message {
    let mut message = route(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, net, via, index);
    if let Some(source) = source {
        message.put(RTA_PREFSRC, &ip_bytes(source));
    }
    message
}

pub(crate) fn delete_route(net: IpNet, via: Option<IpAddr>, index: u32) -> Message {
    route(RTM_DELROUTE, 0, net, via, index)
}

/// Our policy rules.
pub(crate) fn rules(socket: &mut Socket, objects: &mut Objects) -> Result<(), KernelError> {
    let question = Message::new(RTM_GETRULE, NLM_F_REQUEST | NLM_F_DUMP, &[0; FIXED]);
    let rules = socket.dump("rules", &question, |message, rows| {
        if message.kind == RTM_NEWRULE {
            rows.extend(parse_rule(message.body));
        }
    })?;
    rules.into_iter().for_each(|rule| put(objects, Object::Rule(rule)));
    Ok(())
}

fn parse_rule(body: &[u8]) -> Option<Rule> {
    let get = |kind| attribute(body, FIXED, kind);
    if get(FRA_PROTOCOL) != Some(&[PROTOCOL]) {
        return None;
    }
    let family = match i32::from(*body.first()?) {
        libc::AF_INET => Family::V4,
        libc::AF_INET6 => Family::V6,
        _ => return None,
    };
    let number = |kind| get(kind).and_then(|value| get_u32(value, 0));
    let action = match *body.get(7)? {
        FR_ACT_TO_TBL => RuleAction::Lookup(number(FRA_TABLE)?),
        FR_ACT_PROHIBIT => RuleAction::Prohibit,
        FR_ACT_GOTO => RuleAction::Goto(number(FRA_GOTO)?),
        FR_ACT_NOP => RuleAction::Nop,
        _ => return None,
    };
    let on = match (get(FRA_IIFNAME), number(FRA_FWMARK)) {
        (Some(iif), _) => RuleMatch::Iif(get_text(iif)),
        (None, Some(mark)) => RuleMatch::Mark(mark),
        (None, None) => RuleMatch::All,
    };
    Some(Rule { family, priority: number(FRA_PRIORITY)?, on, action })
}

fn rule(kind: u16, flags: u16, rule: &Rule) -> Message {
    let family = match rule.family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    let (action, value) = match rule.action {
        RuleAction::Lookup(table) => (FR_ACT_TO_TBL, Some((FRA_TABLE, table))),
        RuleAction::Prohibit => (FR_ACT_PROHIBIT, None),
        RuleAction::Goto(priority) => (FR_ACT_GOTO, Some((FRA_GOTO, priority))),
        RuleAction::Nop => (FR_ACT_NOP, None),
    };
    let fixed = [family as u8, 0, 0, 0, 0, 0, 0, action, 0, 0, 0, 0];
    let mut message = Message::new(kind, CHANGE | flags, &fixed);
    message.u32(FRA_PRIORITY, rule.priority).put(FRA_PROTOCOL, &[PROTOCOL]);
    match &rule.on {
        RuleMatch::Iif(iif) => {
            message.text(FRA_IIFNAME, iif);
        }
        RuleMatch::Mark(mark) => {
            message.u32(FRA_FWMARK, *mark).u32(FRA_FWMASK, *mark);
        }
        RuleMatch::All => {}
    }
    if let Some((kind, value)) = value {
        message.u32(kind, value);
    }
    message
}

pub(crate) fn add_rule(new: &Rule) -> Message {
    rule(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, new)
}

pub(crate) fn delete_rule(old: &Rule) -> Message {
    rule(RTM_DELRULE, 0, old)
}
