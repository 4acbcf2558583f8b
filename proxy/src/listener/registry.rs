//! The open connections of a worker: who is idle for too long, too old, or to finish. Looked over from time to time, so
//! that a connection needs no timer of its own.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    task::{Context, Waker},
    time::{Duration, Instant},
};

#[derive(Default)]
pub struct Connections(RefCell<Vec<Weak<Control>>>);

/// What a connection and its worker tell each other.
#[derive(Default)]
pub struct Control {
    pub limits: Cell<ConnectionLimits>,
    /// None while a request is under way.
    idle_since: Cell<Option<Instant>>,
    /// Something happened since it was last looked over: cheaper to tell than when.
    touched: Cell<bool>,
    opened: Cell<Option<Instant>>,
    order: Cell<Option<Order>>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionLimits {
    pub idle_timeout: Option<Duration>,
    pub max_duration: Option<Duration>,
    /// How long after `Order::Drain` comes `Order::Close`.
    pub drain_timeout: Duration,
}

/// From the worker to the connection; the last one given holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Finish: tell the peer that this connection takes no more requests.
    Drain(Instant),
    /// Nothing happened for `idle_timeout`.
    IdleTimeout,
    /// `max_duration` is over: as `Drain`.
    MaxDuration(Instant),
    /// The time to drain is over: close when what is under way has ended.
    Close,
}

impl Connections {
    pub fn add(&self, now: Instant) -> Rc<Control> {
        let control = Rc::new(Control::default());
        control.opened.set(Some(now));
        control.idle_since.set(Some(now));
        self.0.borrow_mut().push(Rc::downgrade(&control));
        control
    }

    /// Gives orders where limits are reached; forgets connections that have ended.
    pub fn look_over(&self, now: Instant) {
        self.0.borrow_mut().retain(|control| match control.upgrade() {
            Some(control) => {
                control.look_over(now);
                true
            }
            None => false,
        });
    }

    /// Wakes every connection, so that each sees whether it is to drain.
    pub fn wake_all(&self) {
        for control in self.0.borrow().iter().filter_map(Weak::upgrade) {
            control.wake();
        }
    }
}

impl Control {
    /// To be called whenever the connection's task runs: it is woken when an order comes.
    pub fn order(&self, cx: &Context<'_>) -> Option<Order> {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.order.get()
    }

    pub fn drain(&self, now: Instant) {
        if self.order.get().is_none() {
            self.order.set(Some(Order::Drain(now)));
        }
    }

    pub fn is_draining(&self) -> bool {
        self.order.get().is_some()
    }

    pub fn set_idle(&self, now: Instant) {
        self.idle_since.set(Some(now));
    }

    /// Not idle at this moment.
    pub fn touch(&self) {
        self.touched.set(true);
    }

    pub fn set_busy(&self) {
        self.idle_since.set(None);
    }

    fn look_over(&self, now: Instant) {
        if self.touched.take() && self.idle_since.get().is_some() {
            self.idle_since.set(Some(now));
        }
        let limits = self.limits.get();
        let reached = |since: Option<Instant>, limit: Option<Duration>| match (since, limit) {
            (Some(since), Some(limit)) => now.saturating_duration_since(since) >= limit,
            _ => false,
        };
        let next = match self.order.get() {
            Some(Order::Drain(since) | Order::MaxDuration(since)) => {
                reached(Some(since), Some(limits.drain_timeout)).then_some(Order::Close)
            }
            Some(Order::IdleTimeout | Order::Close) => None,
            None if reached(self.idle_since.get(), limits.idle_timeout) => Some(Order::IdleTimeout),
            None if reached(self.opened.get(), limits.max_duration) => Some(Order::MaxDuration(now)),
            None => None,
        };
        if next.is_some() {
            self.order.set(next);
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_come_when_limits_are_reached_and_not_before() {
        let connections = Connections::default();
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let idle = connections.add(start);
        idle.limits.set(ConnectionLimits { idle_timeout: Some(5 * second), ..Default::default() });
        let busy = connections.add(start);
        busy.limits.set(ConnectionLimits {
            idle_timeout: Some(5 * second),
            max_duration: Some(8 * second),
            drain_timeout: 3 * second,
        });
        busy.set_busy();
        connections.look_over(start + 4 * second);
        assert_eq!((idle.order.get(), busy.order.get()), (None, None));
        connections.look_over(start + 5 * second);
        assert_eq!((idle.order.get(), busy.order.get()), (Some(Order::IdleTimeout), None));
        connections.look_over(start + 8 * second);
        assert_eq!(busy.order.get(), Some(Order::MaxDuration(start + 8 * second)));
        connections.look_over(start + 11 * second);
        assert_eq!(busy.order.get(), Some(Order::Close));
    }

    #[test]
    fn a_touched_connection_is_idle_from_the_next_look_on() {
        let connections = Connections::default();
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let control = connections.add(start);
        control.limits.set(ConnectionLimits { idle_timeout: Some(5 * second), ..Default::default() });
        control.touch();
        connections.look_over(start + 5 * second);
        assert_eq!(control.order.get(), None);
        connections.look_over(start + 10 * second);
        assert_eq!(control.order.get(), Some(Order::IdleTimeout));
    }

    #[test]
    fn ended_connections_are_forgotten() {
        let connections = Connections::default();
        let now = Instant::now();
        let kept = connections.add(now);
        drop(connections.add(now));
        connections.look_over(now);
        assert_eq!(connections.0.borrow().len(), 1);
        drop(kept);
    }
}
