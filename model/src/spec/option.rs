//! Options of network drivers: Docker's names and short ones of our own.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Driver, Invalid, NetworkSpec, Scope, check_device};

/// Largest number of a VLAN (IEEE 802.1Q; 0 and 4095 are reserved).
const VLAN_MAX: u16 = 4094;
/// Most letters in which a mistyped option differs from the one that is meant.
const TYPOS_MAX: usize = 3;

const MTU: &[&str] = &["mtu", "com.docker.network.driver.mtu"];
const NAME: &[&str] = &["name", "com.docker.network.bridge.name"];
const ICC: &[&str] = &["icc", "com.docker.network.bridge.enable_icc"];
const MASQUERADE: &[&str] = &["masquerade", "com.docker.network.bridge.enable_ip_masquerade"];
const HOST_BINDING: &[&str] = &["host-binding", "com.docker.network.bridge.host_binding_ipv4"];
const PARENT: &[&str] = &["parent"];
const MACVLAN_MODE: &[&str] = &["mode", "macvlan_mode"];
const IPVLAN_MODE: &[&str] = &["mode", "ipvlan_mode"];
const BRIDGE: &[&str] = &["bridge"];
const ENCRYPTED: &[&str] = &["encrypted"];

/// How devices on a parent reach each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MacvlanMode {
    /// Directly.
    #[default]
    Bridge,
    /// Not at all.
    Private,
    /// By the switch that the parent is connected to.
    Vepa,
    /// There is only one: it has the parent to itself.
    Passthru,
}

impl MacvlanMode {
    const ALL: [(&str, Self); 4] = [
        ("bridge", Self::Bridge),
        ("private", Self::Private),
        ("vepa", Self::Vepa),
        ("passthru", Self::Passthru),
    ];
}

/// What ipvlan devices look at to tell packets apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum IpvlanMode {
    /// Frames, with broadcast.
    #[default]
    L2,
    /// Packets, routed by the host.
    L3,
    /// The same, with the host's connection tracking.
    L3s,
}

impl IpvlanMode {
    const ALL: [(&str, Self); 3] = [("l2", Self::L2), ("l3", Self::L3), ("l3s", Self::L3s)];
}

/// What a value may be.
#[derive(Clone, Copy)]
enum Kind {
    Mtu,
    Device,
    Flag,
    /// A flag that is also set by its name alone.
    Presence,
    Address,
    Parent,
    MacvlanMode,
    IpvlanMode,
}

/// The options of a driver: all names of each, and what it holds.
fn known(driver: Driver) -> &'static [(&'static [&'static str], Kind)] {
    match driver {
        Driver::Overlay => &[(MTU, Kind::Mtu), (ENCRYPTED, Kind::Presence)],
        Driver::Bridge => &[
            (NAME, Kind::Device),
            (ICC, Kind::Flag),
            (MASQUERADE, Kind::Flag),
            (HOST_BINDING, Kind::Address),
            (MTU, Kind::Mtu),
        ],
        Driver::Macvlan => {
            &[(PARENT, Kind::Parent), (MACVLAN_MODE, Kind::MacvlanMode), (MTU, Kind::Mtu)]
        }
        Driver::Ipvlan => {
            &[(PARENT, Kind::Parent), (IPVLAN_MODE, Kind::IpvlanMode), (MTU, Kind::Mtu)]
        }
        Driver::Ovs => &[(BRIDGE, Kind::Device), (MTU, Kind::Mtu)],
        Driver::Host | Driver::Null => &[],
    }
}

/// Reading.
impl NetworkSpec {
    /// MTU asked for.
    pub fn mtu(&self) -> Option<u32> {
        self.option(MTU)?.parse().ok()
    }

    /// Of an overlay: whether it is encrypted, if it says so.
    pub fn encrypted(&self) -> Option<bool> {
        let said = self.option_of(Driver::Overlay, ENCRYPTED)?;
        if said.is_empty() { Some(true) } else { flag(said) }
    }

    /// Of a bridge: the device asked for.
    pub fn bridge_name(&self) -> Option<&str> {
        self.option_of(Driver::Bridge, NAME)
    }

    /// Of a bridge: whether its containers reach each other without a link.
    pub fn icc(&self) -> bool {
        self.option_of(Driver::Bridge, ICC).and_then(flag).unwrap_or(true)
    }

    /// Of a bridge: whether what leaves the host has the host's address.
    pub fn masquerade(&self) -> bool {
        self.option_of(Driver::Bridge, MASQUERADE).and_then(flag).unwrap_or(true)
    }

    /// Of a bridge: where ports are published if the container does not say.
    pub fn host_binding(&self) -> Option<IpAddr> {
        self.option_of(Driver::Bridge, HOST_BINDING)?.parse().ok()
    }

    /// Of macvlan and ipvlan: the host's device; none is an internal one of our own.
    pub fn parent(&self) -> Option<&str> {
        self.option(PARENT)
    }

    /// Whether it is the cluster's and on devices of the nodes: its members reach each other by the
    /// physical segment that those are on.
    pub fn on_segment(&self) -> bool {
        self.scope() == Scope::Cluster && matches!(self.driver, Driver::Macvlan | Driver::Ipvlan)
    }

    /// Of macvlan.
    pub fn macvlan_mode(&self) -> MacvlanMode {
        let word = self.option_of(Driver::Macvlan, MACVLAN_MODE);
        word.and_then(|word| find(&MacvlanMode::ALL, word)).unwrap_or_default()
    }

    /// Of ipvlan.
    pub fn ipvlan_mode(&self) -> IpvlanMode {
        let word = self.option_of(Driver::Ipvlan, IPVLAN_MODE);
        word.and_then(|word| find(&IpvlanMode::ALL, word)).unwrap_or_default()
    }

    /// Of ovs: an administrator's bridge, which is there already; none is one of our own.
    pub fn ovs_bridge(&self) -> Option<&str> {
        self.option_of(Driver::Ovs, BRIDGE)
    }

    fn option_of(&self, driver: Driver, names: &[&str]) -> Option<&str> {
        if self.driver == driver { self.option(names) } else { None }
    }

    /// The value of the first of these options that is given.
    fn option(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.options.get(*name)).map(String::as_str)
    }
}

/// Checking.
impl NetworkSpec {
    pub(super) fn check_options(&self) -> Result<(), Invalid> {
        let known = known(self.driver);
        for (option, value) in &self.options {
            match known.iter().find(|(names, _)| names.contains(&option.as_str())) {
                Some((_, kind)) => self.check_option(option, value, *kind)?,
                None => return Err(self.unknown(option)),
            }
        }
        for (names, _) in known {
            let given: Vec<_> = names.iter().filter_map(|name| self.options.get(*name)).collect();
            if given.windows(2).any(|pair| pair[0] != pair[1]) {
                let reason = format!("differs from that of {}", names[1]);
                return Err(Invalid::new(&format!("option {}", names[0]), given[0], reason));
            }
        }
        self.check_needed()
    }

    fn check_needed(&self) -> Result<(), Invalid> {
        if self.on_segment() && self.parent().is_none() {
            let reason = "a network of scope cluster needs one: it joins what is on the wire";
            return Err(Invalid::new("option parent", "", reason)
                .hint("name a device that the nodes have: -o parent=eth0"));
        }
        if self.macvlan_mode() == MacvlanMode::Passthru && self.parent().is_none() {
            return Err(Invalid::new("option mode", "passthru", "needs a parent")
                .hint("name a device of the host: -o parent=eth0"));
        }
        Ok(())
    }

    fn check_option(&self, option: &str, value: &str, kind: Kind) -> Result<(), Invalid> {
        let field = format!("option {option}");
        let right = |right: bool, reason: &str| {
            if right { Ok(()) } else { Err(Invalid::new(&field, value, reason)) }
        };
        match kind {
            Kind::Mtu => self.check_mtu(value),
            Kind::Device => check_free_device(&field, value),
            Kind::Parent => check_parent(&field, value),
            Kind::Presence if value.is_empty() => Ok(()),
            Kind::Flag | Kind::Presence => right(flag(value).is_some(), "must be true or false"),
            Kind::Address if option.ends_with("ipv4") => {
                right(value.parse::<std::net::Ipv4Addr>().is_ok(), "must be an IPv4 address")
            }
            Kind::Address => right(value.parse::<IpAddr>().is_ok(), "must be an address"),
            Kind::MacvlanMode => {
                let reason = "must be bridge, private, vepa or passthru";
                right(find(&MacvlanMode::ALL, value).is_some(), reason)
            }
            Kind::IpvlanMode => {
                right(find(&IpvlanMode::ALL, value).is_some(), "must be l2, l3 or l3s")
            }
        }
    }

    fn unknown(&self, option: &str) -> Invalid {
        let reason = match option {
            // Docker accepts a list of VNIs here; ours are chosen by the leader alone.
            "com.docker.network.driver.overlay.vxlanid_list" => {
                return Invalid::new("option", option, "the VNI is chosen by the cluster");
            }
            _ => format!("unknown for driver {}: ", self.driver.word()),
        };
        let names: Vec<_> = known(self.driver).iter().flat_map(|(names, _)| *names).collect();
        let list = names.iter().map(|name| **name).collect::<Vec<_>>().join(", ");
        let list =
            if list.is_empty() { "it has none".to_owned() } else { format!("must be {list}") };
        let invalid = Invalid::new("option", option, reason + &list);
        let nearest = names.into_iter().min_by_key(|name| distance(name, option));
        match nearest.filter(|name| distance(name, option) <= TYPOS_MAX) {
            Some(name) => invalid.hint(format!("did you mean {name}?")),
            None => invalid,
        }
    }
}

/// The words that Docker takes for a flag.
fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "1" => Some(true),
        "false" | "f" | "0" => Some(false),
        _ => None,
    }
}

fn find<T: Copy>(words: &[(&str, T)], word: &str) -> Option<T> {
    words.iter().find(|(known, _)| *known == word).map(|(_, mode)| *mode)
}

/// A device that is not of those we make ourselves.
fn check_free_device(field: &str, name: &str) -> Result<(), Invalid> {
    check_device(field, name)?;
    if is_ours(name) {
        return Err(Invalid::new(field, name, "is the name of a device of Weft's own"));
    }
    Ok(())
}

/// Whether a name is one that we could give: `weft0`, or a short prefix and hex digits.
fn is_ours(name: &str) -> bool {
    let shapes = [("br-", 12), ("wb", 6), ("wx", 6), ("wv", 13)];
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let shaped = |(prefix, digits): (&str, usize)| {
        name.strip_prefix(prefix).is_some_and(|rest| rest.len() == digits && hex(rest))
    };
    name == "weft0" || shapes.into_iter().any(shaped)
}

/// `eth0`, or `eth0.10` for VLAN 10 on it.
fn check_parent(field: &str, name: &str) -> Result<(), Invalid> {
    check_free_device(field, name)?;
    let Some((device, vlan)) = name.rsplit_once('.') else { return Ok(()) };
    if vlan.is_empty() || !vlan.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(());
    }
    let number = vlan.parse::<u16>().ok().filter(|number| (1..=VLAN_MAX).contains(number));
    if device.is_empty() || number.is_none() || vlan.starts_with('0') {
        let reason = format!("must be a device, or DEVICE.VLAN with a VLAN from 1 to {VLAN_MAX}");
        return Err(Invalid::new(field, name, reason));
    }
    Ok(())
}

/// How many letters must be put in, taken out or changed to get from one text to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let change = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(driver: Driver, options: &[(&str, &str)]) -> NetworkSpec {
        let mut spec = NetworkSpec::new("n", driver);
        spec.options = options.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        spec
    }

    #[test]
    fn good_values_are_read() {
        let spec = with(
            Driver::Bridge,
            &[
                ("name", "lan0"),
                ("com.docker.network.bridge.enable_icc", "false"),
                ("masquerade", "0"),
                ("com.docker.network.bridge.host_binding_ipv4", "127.0.0.1"),
                ("com.docker.network.driver.mtu", "1400"),
            ],
        );
        assert_eq!(spec.check(), Ok(()));
        assert_eq!(
            (spec.bridge_name(), spec.icc(), spec.masquerade()),
            (Some("lan0"), false, false)
        );
        assert_eq!(spec.host_binding(), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(spec.mtu(), Some(1400));
        let plain = with(Driver::Bridge, &[]);
        assert_eq!((plain.bridge_name(), plain.icc(), plain.masquerade()), (None, true, true));
        for (word, mode) in MacvlanMode::ALL {
            let spec = with(Driver::Macvlan, &[("parent", "eth0.4094"), ("macvlan_mode", word)]);
            assert_eq!((spec.check(), spec.macvlan_mode()), (Ok(()), mode));
        }
        for (word, mode) in IpvlanMode::ALL {
            let spec = with(Driver::Ipvlan, &[("parent", "eth0"), ("mode", word)]);
            assert_eq!((spec.check(), spec.ipvlan_mode()), (Ok(()), mode));
        }
        assert_eq!(with(Driver::Ovs, &[("bridge", "ovs0")]).ovs_bridge(), Some("ovs0"));
        assert_eq!(with(Driver::Macvlan, &[("parent", "lan.guest")]).check(), Ok(()));
    }

    #[test]
    fn bad_values_are_named() {
        let cases = [
            (Driver::Bridge, "name", "", "must be the name of a device"),
            (Driver::Bridge, "name", "a/b", "must be the name of a device"),
            (Driver::Bridge, "name", "a b", "must be the name of a device"),
            (Driver::Bridge, "name", "..", "must be the name of a device"),
            (Driver::Bridge, "name", "sixteen-letters-", "must be the name of a device"),
            (Driver::Bridge, "name", "weft0", "of Weft's own"),
            (Driver::Bridge, "name", "br-0123456789ab", "of Weft's own"),
            (Driver::Bridge, "name", "wb00ffff", "of Weft's own"),
            (Driver::Bridge, "icc", "maybe", "must be true or false"),
            (Driver::Bridge, "masquerade", "", "must be true or false"),
            (Driver::Bridge, "host-binding", "host", "must be an address"),
            (Driver::Bridge, "com.docker.network.bridge.host_binding_ipv4", "::1", "IPv4"),
            (Driver::Bridge, "mtu", "67", "must be a number from 576 to 65535"),
            (Driver::Bridge, "parent", "eth0", "unknown for driver bridge: must be name, com."),
            (Driver::Macvlan, "parent", "eth0.0", "from 1 to 4094"),
            (Driver::Macvlan, "parent", "eth0.4095", "from 1 to 4094"),
            (Driver::Macvlan, "parent", "eth0.010", "from 1 to 4094"),
            (Driver::Macvlan, "parent", ".10", "from 1 to 4094"),
            (Driver::Macvlan, "mode", "l2", "must be bridge, private, vepa or passthru"),
            (Driver::Macvlan, "mode", "passthru", "needs a parent"),
            (Driver::Ipvlan, "ipvlan_mode", "bridge", "must be l2, l3 or l3s"),
            (Driver::Ipvlan, "macvlan_mode", "bridge", "unknown for driver ipvlan"),
            (Driver::Overlay, "encrypted", "perhaps", "true or false"),
            (Driver::Overlay, "parent", "eth0", "unknown for driver overlay: must be mtu, com."),
        ];
        for (driver, option, value, reason) in cases {
            let error = with(driver, &[(option, value)]).check().unwrap_err().to_string();
            assert!(error.contains(reason), "{option}={value}: {error}");
        }
        let spec =
            with(Driver::Bridge, &[("mtu", "1400"), ("com.docker.network.driver.mtu", "1500")]);
        assert!(spec.check().unwrap_err().to_string().contains("differs"));
    }

    #[test]
    fn a_mistyped_option_is_guessed() {
        let guess = |option| with(Driver::Bridge, &[(option, "x")]).check().unwrap_err().hint;
        assert_eq!(guess("icp").unwrap(), "did you mean icc?");
        let hint = guess("com.docker.network.bridge.enable_ic").unwrap();
        assert_eq!(hint, "did you mean com.docker.network.bridge.enable_icc?");
        assert_eq!(guess("something-else-altogether"), None);
    }
}
