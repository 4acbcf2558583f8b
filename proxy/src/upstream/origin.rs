//! What an upstream connection shows of the downstream that it is for: the address that it comes from, and the PROXY
//! protocol's header. Such a connection can serve no other downstream, so that HTTP's pools are then the downstream's own.

use std::{cell::RefCell, net::IpAddr, rc::Rc};

use crate::upstream::pool::HostPool;

/// Nothing of either by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    pub source: Option<Source>,
    /// Sent before everything else.
    pub preamble: Box<[u8]>,
}

/// An address that need not be this machine's, and the mark that its packets bear for routing (0: none).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    pub ip: IpAddr,
    pub mark: u32,
}

/// The pools that a downstream has for itself. Closed with it.
#[derive(Default)]
pub struct OwnPools(RefCell<Vec<OwnPool>>);

struct OwnPool {
    shared: Rc<HostPool>,
    own: Rc<HostPool>,
}

impl OwnPools {
    /// The downstream's own pool beside the one that all share.
    pub fn beside(&self, shared: Rc<HostPool>, origin: impl FnOnce() -> Origin) -> Rc<HostPool> {
        let mut pools = self.0.borrow_mut();
        if let Some(known) = pools.iter().find(|known| Rc::ptr_eq(&known.shared, &shared)) {
            return known.own.clone();
        }
        // Hosts come and go while a downstream stays.
        pools.retain(|known| !known.shared.is_closed());
        let own = shared.own(origin());
        pools.push(OwnPool { shared, own: own.clone() });
        own
    }
}

impl Drop for OwnPools {
    fn drop(&mut self) {
        for OwnPool { shared: _, own } in self.0.get_mut() {
            own.close();
        }
    }
}
