//! What is done to the network between the hosts. The rules lie in the switch, so that they never mix
//! with those of the product, and flushing a host's rules does not heal a fault.

use super::Lab;

const TABLE: &str = "table bridge chaos {
    set dead { type ifname; }
    set oneway { type ifname . ifname; }
    chain forward {
        type filter hook forward priority -300; policy accept;
        iifname @dead drop
        oifname @dead drop
        iifname . oifname @oneway drop
    }
    chain input {
        type filter hook input priority -300; policy accept;
        iifname @dead drop
    }
    chain output {
        type filter hook output priority -300; policy accept;
        oifname @dead drop
    }
}";

impl Lab {
    /// Nothing passes from or to host `n` any more.
    pub fn cut(&self, n: usize) {
        self.chaos(&format!("add element bridge chaos dead {{ \"v{n}\" }}"));
    }

    /// Nothing passes from host `from` to host `to`; the other way it does.
    pub fn cut_one_way(&self, from: usize, to: usize) {
        self.chaos(&format!("add element bridge chaos oneway {{ \"v{from}\" . \"v{to}\" }}"));
    }

    /// All faults of the network are gone.
    pub fn heal(&self) {
        self.chaos("flush set bridge chaos dead; flush set bridge chaos oneway");
    }

    fn chaos(&self, change: &str) {
        // The table is made by the first fault.
        let script =
            format!("nft list table bridge chaos >/dev/null 2>&1 || nft '{TABLE}'; nft '{change}'");
        self.switch.sh(&script);
    }
}
