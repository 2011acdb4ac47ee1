//! Containers of this node: who is called what, who is on which network, and who has which port.
//!
//! Only the state of a node by itself has any; the cluster knows of services and tasks.

use std::sync::Arc;

use super::{State, not_found};
use crate::{
    command::{Applied, Force, NewEndpoint},
    id::{AttachmentId, ContainerId, NetworkId},
    object::{
        Attachment, Container, Endpoint, Holder, LastRun, Meta, Network, PortBinding, Wanted,
    },
    rejected::Rejected,
    spec::{Driver, EndpointSpec, Invalid, NetworkMode, RunSpec, Scope},
};

/// Looking.
impl State {
    /// All containers of the node, by ID.
    pub fn containers(&self) -> impl Iterator<Item = &Arc<Container>> {
        self.containers.values()
    }

    /// One of them.
    pub fn container(&self, id: ContainerId) -> Option<&Arc<Container>> {
        self.containers.get(&id)
    }

    /// The containers whose published ports leave no room for this one.
    pub fn users_of_port<'a>(
        &'a self,
        binding: &'a PortBinding,
    ) -> impl Iterator<Item = &'a Arc<Container>> {
        self.containers()
            .filter(|container| container.ports.iter().any(|port| port.overlaps(binding)))
    }

    /// The containers that are in the network namespace of this one.
    pub fn joiners(&self, id: ContainerId) -> impl Iterator<Item = &Arc<Container>> {
        self.containers().filter(move |container| {
            container.wanted != Wanted::Removed
                && container.spec.network == NetworkMode::Container(id)
        })
    }
}

/// Changing.
impl State {
    pub(super) fn create_container(
        &mut self,
        id: ContainerId,
        spec: &Arc<RunSpec>,
        endpoints: &[NewEndpoint],
    ) -> Result<Applied, Rejected> {
        self.is_of_one_node(&spec.name)?;
        spec.check()?;
        self.check_container_name(id, &spec.name)?;
        if let NetworkMode::Container(owner) = spec.network {
            self.standing(owner)?;
        }
        if endpoints.len() != spec.endpoints.len() {
            return Err(Rejected::Forbidden {
                what: format!("container {} cannot be made", spec.name),
                why: "not every one of its networks was decided on".to_owned(),
                hint: String::new(),
            });
        }
        let container = Container {
            id,
            meta: Meta::new(self.now),
            spec: Arc::clone(spec),
            wanted: Wanted::Stopped,
            starts: 0,
            endpoints: Vec::new(),
            ports: Vec::new(),
            last: None,
        };
        self.containers.insert_mut(id, Arc::new(container));
        for (asked, new) in spec.endpoints.iter().zip(endpoints) {
            self.join(id, asked, new)?;
        }
        Ok(Applied::of(id))
    }

    pub(super) fn set_container(
        &mut self,
        id: ContainerId,
        wanted: Wanted,
        ports: &[PortBinding],
        force: Force,
    ) -> Result<Applied, Rejected> {
        let container = self.container(id).ok_or_else(|| not_found("container", id))?.clone();
        if container.wanted == Wanted::Removed && wanted != Wanted::Removed {
            return Err(is_being_removed(&container));
        }
        match wanted {
            Wanted::Running => self.check_start(&container, ports)?,
            Wanted::Stopped => {}
            Wanted::Removed => self.check_remove(&container, force)?,
        }
        if wanted != Wanted::Running && !ports.is_empty() {
            return Err(cannot(&container, "have ports", "it is not started"));
        }
        self.change_container(id, |container| {
            container.wanted = wanted;
            if wanted == Wanted::Running {
                container.starts += 1;
                container.ports = ports.to_vec();
            }
        });
        Ok(Applied::of(id))
    }

    pub(super) fn note_container(
        &mut self,
        id: ContainerId,
        last: &LastRun,
        wanted: Wanted,
    ) -> Result<Applied, Rejected> {
        let container = self.container(id).ok_or_else(|| not_found("container", id))?;
        if last.start > container.starts || last.start == 0 {
            return Err(cannot(container, "have ended", "it was not started so often"));
        }
        let newer = |known: &LastRun| known.start > last.start;
        if container.last.as_ref().is_some_and(newer) {
            return Ok(Applied::of(id));
        }
        self.change_container(id, |container| {
            container.last = Some(last.clone());
            // The end of an earlier run says nothing of the present one.
            if container.starts == last.start {
                container.wanted = container.wanted.max(wanted);
                if container.wanted != Wanted::Running {
                    container.ports.clear();
                }
            }
        });
        Ok(Applied::of(id))
    }

    pub(super) fn connect(
        &mut self,
        id: ContainerId,
        spec: &EndpointSpec,
        new: &NewEndpoint,
    ) -> Result<Applied, Rejected> {
        let container = self.standing(id)?;
        let why = match container.spec.network {
            NetworkMode::Networks => None,
            NetworkMode::Host => Some("it has the host's network namespace"),
            NetworkMode::None => Some("it was made without a network"),
            NetworkMode::Container(_) => Some("it has another container's network namespace"),
        };
        if let Some(why) = why {
            return Err(cannot(&container, "be connected to a network", why));
        }
        spec.check()?;
        self.join(id, spec, new)?;
        Ok(Applied::of(id))
    }

    pub(super) fn disconnect(
        &mut self,
        id: ContainerId,
        network: NetworkId,
    ) -> Result<Applied, Rejected> {
        let container = self.container(id).ok_or_else(|| not_found("container", id))?.clone();
        let Some(endpoint) = container.endpoint_on(network) else {
            let name = self.network_label(network);
            let why = format!("it is not connected to network {name}");
            return Err(cannot(&container, "be disconnected", &why));
        };
        self.free_attachment(endpoint.attachment);
        self.change_container(id, |container| {
            container.endpoints.retain(|endpoint| endpoint.spec.network != network);
        });
        Ok(Applied::of(id))
    }

    pub(super) fn forget_container(&mut self, id: ContainerId) -> Result<Applied, Rejected> {
        let container = self.container(id).ok_or_else(|| not_found("container", id))?.clone();
        if container.wanted != Wanted::Removed {
            return Err(cannot(&container, "be forgotten", "nobody has removed it"));
        }
        for endpoint in &container.endpoints {
            self.free_attachment(endpoint.attachment);
        }
        self.drop_cables(id);
        self.containers.remove_mut(&id);
        Ok(Applied::of(id))
    }

    fn change_container(&mut self, id: ContainerId, change: impl FnOnce(&mut Container)) {
        if let Some(found) = self.container(id) {
            let mut container = Container::clone(found);
            change(&mut container);
            container.meta.touch(self.now);
            self.containers.insert_mut(id, Arc::new(container));
        }
    }

    fn free_attachment(&mut self, id: AttachmentId) {
        if let Some(found) = self.attachment(id).cloned() {
            self.attachments.remove_mut(&id);
            self.rest_addresses(found.network, &found.addresses);
        }
    }
}

/// Checking what containers may be and have.
impl State {
    fn is_of_one_node(&self, name: &str) -> Result<(), Rejected> {
        if self.cluster().is_none() {
            return Ok(());
        }
        Err(Rejected::Forbidden {
            what: format!("container {name} cannot be made"),
            why: "the cluster keeps services, and each node its own containers".to_owned(),
            hint: "weft service create".to_owned(),
        })
    }

    fn check_container_name(&self, id: ContainerId, name: &str) -> Result<(), Rejected> {
        let same =
            |other: &&Arc<Container>| other.id == id || other.spec.name.eq_ignore_ascii_case(name);
        match self.containers().find(same) {
            Some(other) => {
                Err(Rejected::NameInUse { name: name.to_owned(), id: other.id.to_string() })
            }
            None => Ok(()),
        }
    }

    /// A container that is there to stay.
    fn standing(&self, id: ContainerId) -> Result<Arc<Container>, Rejected> {
        let container = self.container(id).ok_or_else(|| not_found("container", id.short()))?;
        match container.wanted {
            Wanted::Removed => Err(is_being_removed(container)),
            Wanted::Running | Wanted::Stopped => Ok(Arc::clone(container)),
        }
    }

    fn check_start(&self, container: &Container, ports: &[PortBinding]) -> Result<(), Rejected> {
        if let NetworkMode::Container(owner) = container.spec.network {
            self.check_owner_runs(container, owner)?;
        }
        if container.spec.network != NetworkMode::Networks && !ports.is_empty() {
            return Err(cannot(container, "publish ports", "it has no network of its own"));
        }
        for (index, binding) in ports.iter().enumerate() {
            if !container.spec.publishes(binding) {
                let port = format!("{}/{}", binding.port, binding.protocol);
                return Err(cannot(
                    container,
                    "publish ports",
                    &format!("{port} is not asked for"),
                ));
            }
            let own = ports[..index].iter().any(|earlier| earlier.overlaps(binding));
            let other = self.users_of_port(binding).find(|other| other.id != container.id);
            if own || other.is_some() {
                let user = other.map_or(&container.spec.name, |other| &other.spec.name);
                return Err(port_taken(binding, user));
            }
        }
        Ok(())
    }

    fn check_owner_runs(&self, joiner: &Container, owner: ContainerId) -> Result<(), Rejected> {
        let owner = self.container(owner).ok_or_else(|| Rejected::Forbidden {
            what: format!("container {} cannot start", joiner.spec.name),
            why: format!("container {}, whose network it joins, is gone", owner.short()),
            hint: "make it anew, in the network of another".to_owned(),
        })?;
        if owner.wanted == Wanted::Running {
            return Ok(());
        }
        Err(Rejected::Forbidden {
            what: format!("container {} cannot start", joiner.spec.name),
            why: format!("container {}, whose network it joins, does not run", owner.spec.name),
            hint: format!("weft start {}", owner.spec.name),
        })
    }

    fn check_remove(&self, container: &Container, force: Force) -> Result<(), Rejected> {
        let name = &container.spec.name;
        let (why, hint) = match force {
            Force::Yes => return Ok(()),
            Force::No if container.wanted == Wanted::Running => {
                ("it is running".to_owned(), format!("weft stop {name}, or weft rm -f {name}"))
            }
            Force::No => {
                let joiners: Vec<_> =
                    self.joiners(container.id).map(|joiner| joiner.spec.name.clone()).collect();
                if joiners.is_empty() {
                    return Ok(());
                }
                let why = format!("its network is used by {}", joiners.join(", "));
                (why, format!("remove those first, or weft rm -f {name}"))
            }
        };
        Err(Rejected::Forbidden { what: format!("container {name} cannot be removed"), why, hint })
    }

    /// Makes a container a member of a network.
    fn join(
        &mut self,
        id: ContainerId,
        asked: &EndpointSpec,
        new: &NewEndpoint,
    ) -> Result<(), Rejected> {
        let container = self.container(id).ok_or_else(|| not_found("container", id))?.clone();
        self.check_endpoint(&container, asked, new)?;
        match asked.scope {
            Scope::Local => self.attach_container(id, asked, new)?,
            // The cluster's networks, and who has which address there, are the managers' to know.
            Scope::Cluster if new.addresses.is_empty() => {}
            Scope::Cluster => {
                let why = "the cluster gives addresses on its networks itself";
                return Err(cannot(&container, "be connected", why));
            }
        }
        let endpoint = Endpoint {
            spec: asked.clone(),
            attachment: new.attachment,
            ifname: new.ifname.clone(),
        };
        self.change_container(id, |container| container.endpoints.push(endpoint));
        Ok(())
    }

    fn check_endpoint(
        &self,
        container: &Container,
        asked: &EndpointSpec,
        new: &NewEndpoint,
    ) -> Result<(), Rejected> {
        if container.endpoint_on(asked.network).is_some() {
            let name = self.network_label(asked.network);
            let why = format!("it is on network {name} already");
            return Err(cannot(container, "be connected", &why));
        }
        crate::spec::check_device("interface", &new.ifname)?;
        if self.has_interface(container, &new.ifname) {
            return Err(Invalid::new("interface", &new.ifname, "is given twice").into());
        }
        let known = self.attachments.contains_key(&new.attachment)
            || self.containers().any(|other| {
                other.endpoints.iter().any(|endpoint| endpoint.attachment == new.attachment)
            });
        if known {
            let (kind, id) = ("attachment".to_owned(), new.attachment.short());
            return Err(Rejected::Exists { kind, name: id.clone(), id });
        }
        for link in &asked.links {
            self.check_link(container, asked, link.target, &link.name)?;
        }
        Ok(())
    }

    /// The default bridge answers no names: a link there is a line in a file, and needs an address.
    fn check_link(
        &self,
        container: &Container,
        asked: &EndpointSpec,
        target: ContainerId,
        name: &str,
    ) -> Result<(), Rejected> {
        let found = self.container(target).ok_or_else(|| not_found("container", name))?;
        let what = format!("be linked to {name}");
        if found.id == container.id {
            return Err(cannot(container, &what, "that is itself"));
        }
        let default = self.network(asked.network).filter(|network| is_default_bridge(network));
        if default.is_some() && found.endpoint_on(asked.network).is_none() {
            let why = format!("{name} is not on the default bridge network");
            return Err(cannot(container, &what, &why));
        }
        Ok(())
    }

    fn attach_container(
        &mut self,
        id: ContainerId,
        asked: &EndpointSpec,
        new: &NewEndpoint,
    ) -> Result<(), Rejected> {
        let network = self.network(asked.network);
        let network = network.ok_or_else(|| not_found("network", asked.network.short()))?.clone();
        check_wishes(&network, asked, new)?;
        // First: a hardware address that was made of a taken address is taken, too.
        self.take_addresses(network.id, &new.addresses)?;
        let twin = |other: &&Arc<Attachment>| other.network == network.id && other.mac == new.mac;
        if self.attachments().any(|other| twin(&other)) {
            let reason = format!("is in use on network {}", network.spec.name);
            return Err(Invalid::new("--mac-address", mac_text(new.mac), reason).into());
        }
        let attachment = Attachment {
            id: new.attachment,
            network: network.id,
            holder: Holder::Container(id),
            addresses: new.addresses.clone(),
            mac: new.mac,
            node: None,
        };
        self.attachments.insert_mut(new.attachment, Arc::new(attachment));
        Ok(())
    }

    /// A network's name, or its ID if it is not one of the node's.
    fn network_label(&self, id: NetworkId) -> String {
        self.network(id).map_or_else(|| id.short(), |network| network.spec.name.clone())
    }
}

/// What may be asked of an endpoint differs with the network, and what was decided must be what was
/// asked.
fn check_wishes(
    network: &Network,
    asked: &EndpointSpec,
    new: &NewEndpoint,
) -> Result<(), Rejected> {
    let name = &network.spec.name;
    let refused = |why: &str, hint: &str| Rejected::Forbidden {
        what: format!("a container cannot join network {name}"),
        why: why.to_owned(),
        hint: hint.to_owned(),
    };
    let hint = "make a network of your own: weft network create NAME";
    match network.spec.driver {
        Driver::Host => return Err(refused("it is the host's", "use --network host alone")),
        Driver::Null => return Err(refused("it is none", "use --network none alone")),
        Driver::Bridge | Driver::Macvlan | Driver::Ipvlan | Driver::Ovs | Driver::Overlay => {}
    }
    if is_default_bridge(network) && !asked.addresses.is_empty() {
        let why = "addresses can be asked for on user-defined networks only";
        return Err(refused(why, hint));
    }
    if is_default_bridge(network) && !asked.aliases.is_empty() {
        let why = "aliases are for user-defined networks only";
        return Err(refused(why, hint));
    }
    let kept = asked.addresses.iter().all(|address| new.addresses.contains(address))
        && asked.mac.is_none_or(|mac| mac == new.mac);
    if kept { Ok(()) } else { Err(refused("other addresses were decided than asked for", "")) }
}

fn is_default_bridge(network: &Network) -> bool {
    network.spec.is_predefined() && network.spec.driver == Driver::Bridge
}

fn cannot(container: &Container, what: &str, why: &str) -> Rejected {
    Rejected::Forbidden {
        what: format!("container {} cannot {what}", container.spec.name),
        why: why.to_owned(),
        hint: String::new(),
    }
}

fn is_being_removed(container: &Container) -> Rejected {
    cannot(container, "be changed", "it is being removed")
}

/// Docker's sentence, and who has the port.
fn port_taken(binding: &PortBinding, user: &str) -> Rejected {
    let address = std::net::SocketAddr::new(binding.host_ip, binding.host_port);
    Rejected::Forbidden {
        what: format!("bind for {address} failed"),
        why: format!("port is already allocated, by container {user}"),
        hint: format!("publish at another port, or stop it: weft stop {user}"),
    }
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
