use proptest::prelude::*;

use super::*;

#[test]
fn rules_and_routes_of_ours_are_recognised() {
    let route = PolicyRoute { mark: 0x0102_0304, table: 300 };
    assert_eq!(our_rule(&rule_message(route, Family::V4)), Some(route));
    assert_eq!(our_route(&route_message(300, Family::V6)), Some(300));
    let mut foreign = rule_header(Family::V4, RULE_TO_TABLE);
    push_attribute(&mut foreign, RULE_TABLE, &300u32.to_ne_bytes());
    push_attribute(&mut foreign, RULE_MARK, &7u32.to_ne_bytes());
    assert_eq!(our_rule(&foreign), None, "somebody else's rule with the same table");
    push_attribute(&mut foreign, RULE_PROTOCOL, &[4]);
    assert_eq!(our_rule(&foreign), None);
}

#[test]
fn addresses_are_read() {
    let address = interface_address(&bypass_address_message()).unwrap();
    assert_eq!((address.net.to_string().as_str(), address.interface), ("::6/128", LOOPBACK_INDEX));
}

#[test]
fn an_acknowledgement_is_success_or_an_error() {
    assert_eq!(acknowledgement(&0i32.to_ne_bytes()), Ok(()));
    assert_eq!(acknowledgement(&(-17i32).to_ne_bytes()), Err(Errno::EXIST));
    assert_eq!(acknowledgement(&[1, 2]), Err(Errno::BADMSG));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for message in messages(&bytes) {
            let _ = (message.kind, interface_address(message.body), our_rule(message.body), our_route(message.body));
        }
        let _ = (interface_address(&bytes), our_rule(&bytes), our_route(&bytes), acknowledgement(&bytes));
        let _ = attributes(&bytes).count();
    }
}
