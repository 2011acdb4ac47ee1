//! What a network is made from.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use weft_ipam::overlaps;

use super::{Invalid, check_label_count, check_name};

/// Least MTU of a network that carries IPv4 (RFC 791 asks of every link to carry 68 bytes; hosts
/// expect 576).
const MTU_MIN: u32 = 576;
/// Least MTU of a network that carries IPv6 (RFC 8200 section 5).
const MTU_MIN_IPV6: u32 = 1280;
/// Largest MTU of a veth device.
const MTU_MAX: u32 = 65_535;
/// Prefixes that mean something else to every host, with what they are.
const SPECIAL: [(&str, &str); 9] = [
    ("0.0.0.0/8", "this network"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::ffff:0:0/96", "IPv4-mapped"),
    ("fe80::/10", "link-local"),
    ("ff00::/8", "multicast"),
    ("::/127", "unspecified and loopback"),
];
/// Names that mean something else.
const PREDEFINED: [&str; 5] = ["bridge", "host", "none", "ingress", "default"];
/// The networks that every node has.
const PREDEFINED_LOCAL: [(&str, Driver); 3] =
    [("bridge", Driver::Bridge), ("host", Driver::Host), ("none", Driver::Null)];

/// How a network is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Driver {
    /// Across nodes, by VXLAN.
    Overlay,
    /// A bridge of this node.
    Bridge,
    /// The host's own namespace; only the predefined `host`.
    Host,
    /// Nothing but loopback; only the predefined `none`.
    Null,
    /// Hardware addresses of their own on a device of the host.
    Macvlan,
    /// Addresses of their own on a device of the host, under its hardware address.
    Ipvlan,
    /// Ports of an Open vSwitch bridge.
    Ovs,
}

/// Whose a network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    /// This node's.
    Local,
    /// The cluster's.
    Cluster,
}

impl Scope {
    /// "local" or "cluster".
    pub fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Cluster => "cluster",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Driver {
    /// The word on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::Null => "null",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
            Self::Ovs => "ovs",
        }
    }

    /// Whose its networks are if the user does not say.
    pub fn scope(self) -> Scope {
        match self {
            Self::Overlay => Scope::Cluster,
            Self::Bridge | Self::Host | Self::Null | Self::Macvlan | Self::Ipvlan | Self::Ovs => {
                Scope::Local
            }
        }
    }

    /// Checks that its networks may be of this scope.
    ///
    /// # Errors
    /// When they may not, with those that may.
    pub fn check_scope(self, scope: Scope) -> Result<(), Invalid> {
        let either = matches!(self, Self::Macvlan | Self::Ipvlan);
        if either || scope == self.scope() {
            return Ok(());
        }
        let reason = format!("a network of driver {} is of scope {}", self.word(), self.scope());
        let hint = match scope {
            Scope::Local => "use -d bridge, macvlan, ipvlan or ovs",
            Scope::Cluster => "use -d overlay, macvlan or ipvlan",
        };
        Err(Invalid::new("--scope", scope, reason).hint(hint))
    }
}

/// One subnet that the user asked for, in whole or in part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSpec {
    /// The prefix; none lets the cluster choose.
    pub subnet: Option<IpNet>,
    /// The gateway's address; none takes the first.
    pub gateway: Option<IpAddr>,
    /// The part that addresses are chosen from; none is all.
    pub range: Option<IpNet>,
    /// Addresses that are never given out, by name.
    pub auxiliary: BTreeMap<String, IpAddr>,
}

/// A user's words on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Unique, without regard to case.
    pub name: String,
    /// How it is made.
    pub driver: Driver,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options as given.
    pub options: BTreeMap<String, String>,
    /// Has no way out.
    pub internal: bool,
    /// May be joined by containers that are not of a service.
    pub attachable: bool,
    /// Wants IPv6, with a chosen subnet if none is given.
    pub ipv6: bool,
    /// Subnets asked for.
    pub pools: Vec<PoolSpec>,
    /// Whose it is, where that is not what its driver says.
    #[serde(default)]
    pub scope: Option<Scope>,
}

impl NetworkSpec {
    /// An overlay with defaults for all but its name.
    pub fn overlay(name: &str) -> Self {
        Self::new(name, Driver::Overlay)
    }

    /// A network with defaults for all but its name and driver.
    pub fn new(name: &str, driver: Driver) -> Self {
        Self {
            name: name.to_owned(),
            driver,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            internal: false,
            attachable: false,
            ipv6: false,
            pools: Vec::new(),
            scope: None,
        }
    }

    /// Whose it is.
    pub fn scope(&self) -> Scope {
        self.scope.unwrap_or(self.driver.scope())
    }

    /// Whether it is one of those that every node has, and nobody can make or remove.
    pub fn is_predefined(&self) -> bool {
        PREDEFINED_LOCAL.iter().any(|(name, driver)| self.name == *name && self.driver == *driver)
    }

    /// The predefined network of a driver, with defaults for all else.
    pub fn predefined(driver: Driver) -> Option<Self> {
        let (name, driver) = PREDEFINED_LOCAL.iter().find(|(_, other)| *other == driver)?;
        Some(Self::new(name, *driver))
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is not allowed.
    pub fn check(&self) -> Result<(), Invalid> {
        check_name("network name", &self.name)?;
        if PREDEFINED.iter().any(|name| name.eq_ignore_ascii_case(&self.name)) {
            return Err(Invalid::new("network name", &self.name, "the name is predefined"));
        }
        if matches!(self.driver, Driver::Host | Driver::Null) {
            let reason = "there is only the predefined one";
            return Err(Invalid::new("--driver", self.driver.word(), reason));
        }
        self.check_body()
    }

    /// Checks every field of one of the predefined networks.
    ///
    /// # Errors
    /// The first field that is not allowed.
    pub fn check_predefined(&self) -> Result<(), Invalid> {
        if !self.is_predefined() {
            return Err(Invalid::new("network name", &self.name, "the name is not predefined"));
        }
        if self.driver != Driver::Bridge && !self.pools.is_empty() {
            let reason = "it has no subnets";
            return Err(Invalid::new("network", &self.name, reason));
        }
        self.check_body()
    }

    fn check_body(&self) -> Result<(), Invalid> {
        check_label_count(&self.labels)?;
        self.driver.check_scope(self.scope())?;
        self.check_options()?;
        self.pools.iter().try_for_each(PoolSpec::check)?;
        for (index, pool) in self.pools.iter().enumerate() {
            let Some(subnet) = pool.subnet else { continue };
            let earlier = self.pools[..index].iter().filter_map(|pool| pool.subnet);
            if let Some(other) = earlier.into_iter().find(|other| overlaps(*other, subnet)) {
                let reason = format!("overlaps {other} of the same network");
                return Err(Invalid::new("--subnet", subnet, reason));
            }
        }
        if self.on_segment() { self.check_segment() } else { Ok(()) }
    }

    /// The prefixes of a physical segment are what its routers say: none can be chosen for it.
    fn check_segment(&self) -> Result<(), Invalid> {
        let given = |v6: bool| {
            let mut subnets = self.pools.iter().filter_map(|pool| pool.subnet);
            subnets.any(|subnet| subnet.addr().is_ipv6() == v6)
        };
        let why = if self.pools.iter().any(|pool| pool.subnet.is_none()) || self.pools.is_empty() {
            "a network on devices of the nodes has the prefix of their segment"
        } else if self.ipv6 && !given(true) {
            "--ipv6 needs the IPv6 prefix of the segment"
        } else {
            return Ok(());
        };
        let hint = "give what is on the wire, and a part that nobody else gives out: \
                    --subnet CIDR --gateway IP --ip-range CIDR";
        Err(Invalid::new("--subnet", "", why).hint(hint))
    }

    pub(super) fn check_mtu(&self, value: &str) -> Result<(), Invalid> {
        let carries_ipv6 =
            self.ipv6 || self.pools.iter().any(|p| matches!(p.subnet, Some(IpNet::V6(_))));
        let least = if carries_ipv6 { MTU_MIN_IPV6 } else { MTU_MIN };
        match value.parse::<u32>() {
            Ok(mtu) if (least..=MTU_MAX).contains(&mtu) => Ok(()),
            Ok(_) | Err(_) => {
                let reason = format!("must be a number from {least} to {MTU_MAX}");
                Err(Invalid::new("option mtu", value, reason))
            }
        }
    }
}

impl PoolSpec {
    /// A pool of just this subnet.
    pub fn of(subnet: IpNet) -> Self {
        Self { subnet: Some(subnet), ..Self::default() }
    }

    fn check(&self) -> Result<(), Invalid> {
        let Some(subnet) = self.subnet else { return self.check_without_subnet() };
        check_subnet(subnet)?;
        if let Some(range) = self.range.filter(|range| !subnet.contains(range)) {
            return Err(Invalid::new("--ip-range", range, format!("is not inside {subnet}")));
        }
        let mut seen = BTreeSet::new();
        let gateway = self.gateway.map(|address| ("--gateway", address));
        let auxiliary = self.auxiliary.values().map(|address| ("--aux-address", *address));
        for (field, address) in gateway.into_iter().chain(auxiliary) {
            check_host_address(field, address, subnet)?;
            if !seen.insert(address) {
                return Err(Invalid::new(field, address, "is given twice"));
            }
        }
        Ok(())
    }

    fn check_without_subnet(&self) -> Result<(), Invalid> {
        let without = |field, value: String| {
            Err(Invalid::new(field, value, "needs a --subnet that contains it"))
        };
        match (self.gateway, self.range, self.auxiliary.values().next()) {
            (Some(gateway), _, _) => without("--gateway", gateway.to_string()),
            (None, Some(range), _) => without("--ip-range", range.to_string()),
            (None, None, Some(address)) => without("--aux-address", address.to_string()),
            (None, None, None) => Ok(()),
        }
    }
}

fn check_subnet(subnet: IpNet) -> Result<(), Invalid> {
    let invalid = |reason: String| Invalid::new("--subnet", subnet, reason);
    if subnet.trunc() != subnet {
        let corrected = subnet.trunc();
        return Err(invalid("has host bits set".to_owned())
            .hint(format!("did you mean --subnet {corrected}?")));
    }
    if subnet.prefix_len() == 0 {
        return Err(invalid("is the whole address space".to_owned()));
    }
    for (prefix, what) in SPECIAL {
        let special: IpNet = prefix.parse().expect("the table holds prefixes");
        if overlaps(special, subnet) {
            return Err(invalid(format!("overlaps {prefix} ({what})")));
        }
    }
    if subnet.max_prefix_len() - subnet.prefix_len() < 2 {
        let longest = subnet.max_prefix_len() - 2;
        return Err(invalid(format!("is too small: at most /{longest}, for a gateway and a task")));
    }
    Ok(())
}

fn check_host_address(field: &str, address: IpAddr, subnet: IpNet) -> Result<(), Invalid> {
    if !subnet.contains(&address) {
        return Err(Invalid::new(field, address, format!("is not inside {subnet}")));
    }
    if address == subnet.network() {
        return Err(Invalid::new(field, address, format!("is the network address of {subnet}")));
    }
    if address.is_ipv4() && address == subnet.broadcast() {
        return Err(Invalid::new(field, address, format!("is the broadcast address of {subnet}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(subnet: &str) -> PoolSpec {
        PoolSpec::of(subnet.parse().unwrap())
    }

    fn refused(spec: &NetworkSpec) -> String {
        spec.check().unwrap_err().to_string()
    }

    #[test]
    fn bad_subnets_each_have_their_own_message() {
        let cases = [
            ("10.0.0.5/24", "has host bits set"),
            ("0.0.0.0/0", "is the whole address space"),
            ("127.0.0.0/16", "overlaps 127.0.0.0/8 (loopback)"),
            ("169.254.0.0/16", "link-local"),
            ("224.0.0.0/24", "multicast"),
            ("240.0.0.0/8", "reserved"),
            ("::/0", "is the whole address space"),
            ("fe80::/64", "link-local"),
            ("ff02::/64", "multicast"),
            ("::ffff:0:0/97", "IPv4-mapped"),
            ("10.0.0.0/31", "too small"),
            ("10.0.0.1/32", "too small"),
            ("fd00::/127", "too small"),
        ];
        for (subnet, reason) in cases {
            let mut spec = NetworkSpec::overlay("n");
            spec.pools.push(pool(subnet));
            let error = refused(&spec);
            assert!(error.contains(reason), "{subnet}: {error}");
        }
        let mut spec = NetworkSpec::overlay("n");
        spec.pools.push(pool("10.0.0.5/24"));
        assert_eq!(spec.check().unwrap_err().hint.unwrap(), "did you mean --subnet 10.0.0.0/24?");
    }

    #[test]
    fn addresses_must_lie_inside() {
        let cases: &[(&str, fn(&mut PoolSpec))] = &[
            ("invalid --gateway \"10.1.0.1\": is not inside", |p| {
                p.gateway = Some("10.1.0.1".parse().unwrap());
            }),
            ("is the network address", |p| p.gateway = Some("10.0.0.0".parse().unwrap())),
            ("is the broadcast address", |p| p.gateway = Some("10.0.0.255".parse().unwrap())),
            ("is not inside", |p| p.gateway = Some("fd00::1".parse().unwrap())),
            ("--ip-range", |p| p.range = Some("10.0.1.0/25".parse().unwrap())),
            ("is given twice", |p| {
                p.gateway = Some("10.0.0.9".parse().unwrap());
                p.auxiliary.insert("a".into(), "10.0.0.9".parse().unwrap());
            }),
            ("needs a --subnet", |p| {
                p.subnet = None;
                p.gateway = Some("10.0.0.9".parse().unwrap());
            }),
        ];
        for (reason, spoil) in cases {
            let mut spec = NetworkSpec::overlay("n");
            let mut pool = pool("10.0.0.0/24");
            spoil(&mut pool);
            spec.pools.push(pool);
            assert!(refused(&spec).contains(reason), "{}", refused(&spec));
        }
    }

    #[test]
    fn only_what_is_on_the_wire_joins_a_segment() {
        let mut spec = NetworkSpec::new("lan", Driver::Macvlan);
        assert_eq!((spec.scope(), spec.check()), (Scope::Local, Ok(())));
        spec.scope = Some(Scope::Cluster);
        assert!(refused(&spec).contains("option parent"), "{}", refused(&spec));
        spec.options.insert("parent".into(), "eth0".into());
        assert!(refused(&spec).contains("has the prefix of their segment"));
        spec.pools.push(pool("10.99.0.0/24"));
        assert_eq!(spec.check(), Ok(()));
        spec.ipv6 = true;
        assert!(refused(&spec).contains("--ipv6 needs"));
        spec.pools.push(pool("fd00::/64"));
        assert_eq!(spec.check(), Ok(()));
        spec.pools.push(PoolSpec::default());
        assert!(refused(&spec).contains("--subnet"));
    }

    #[test]
    fn each_driver_has_its_scopes() {
        let check = |driver: Driver, scope| {
            let spec = NetworkSpec { scope: Some(scope), ..NetworkSpec::new("n", driver) };
            spec.check().unwrap_err()
        };
        let error = check(Driver::Bridge, Scope::Cluster);
        let reason = "invalid --scope \"cluster\": a network of driver bridge is of scope local";
        assert_eq!(error.to_string(), reason);
        assert_eq!(error.hint.unwrap(), "use -d overlay, macvlan or ipvlan");
        assert_eq!(check(Driver::Ovs, Scope::Cluster).field, "--scope");
        assert_eq!(check(Driver::Overlay, Scope::Local).field, "--scope");
    }

    #[test]
    fn options_and_names() {
        for name in ["host", "None", "INGRESS", "bridge"] {
            assert!(refused(&NetworkSpec::overlay(name)).contains("predefined"));
        }
        for (option, value) in
            [("mtu", "10"), ("mtu", "x"), ("com.docker.network.driver.mtu", "65536"), ("foo", "1")]
        {
            let mut spec = NetworkSpec::overlay("n");
            spec.options.insert(option.into(), value.into());
            assert!(spec.check().is_err(), "{option}={value}");
        }
        let mut spec = NetworkSpec::overlay("n");
        spec.options.insert("mtu".into(), "1400".into());
        assert_eq!((spec.check(), spec.mtu()), (Ok(()), Some(1400)));
        spec.options.insert("mtu".into(), "1000".into());
        spec.ipv6 = true;
        assert!(refused(&spec).contains("from 1280"));
    }
}
