use super::*;

const SAVED: &str = "# Generated\n*nat\n:PREROUTING ACCEPT [1:2]\n:MESH_OLD - [0:0]\n:KUBE_MARK - [0:0]\n:MESH_OUTPUT - [3:4]\n\
    -A OUTPUT -p tcp -m comment --comment \"-j MESH_FAKE\" -j KUBE_MARK\n-A OUTPUT -j MESH_OUTPUT\n-A KUBE_MARK -j RETURN\n\
    -A MESH_OUTPUT -p tcp -j RETURN\n-A MESH_OUTPUT -d 127.0.0.1/32 -j MESH_OLD\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n";

#[test]
fn only_chains_with_the_prefix_are_read() {
    let ruleset = Ruleset::parse(SAVED, PREFIX);
    let jumps: Vec<_> = ruleset.jumps().collect();
    assert_eq!(
        jumps,
        [("nat", "MESH_OUTPUT", "RETURN"), ("nat", "MESH_OUTPUT", "MESH_OLD"), ("nat", "OUTPUT", "MESH_OUTPUT")]
    );
    assert!(Ruleset::parse(SAVED, ISTIO_PREFIX).is_empty());
}

#[test]
fn a_transition_to_nothing_names_what_was_there_and_nothing_else() {
    let text = transition(&Ruleset::parse(SAVED, PREFIX), &Ruleset::default());
    let expected = "*nat\n:MESH_OLD - [0:0]\n:MESH_OUTPUT - [0:0]\n-D OUTPUT -j MESH_OUTPUT\n-X MESH_OLD\n-X MESH_OUTPUT\nCOMMIT\n";
    assert_eq!(text, expected);
}

#[test]
fn a_transition_there_and_back_is_the_way_it_came() {
    let old = Ruleset::parse(SAVED, PREFIX);
    let new = Ruleset::parse(&SAVED.replace("MESH_OLD", "MESH_NEW"), PREFIX);
    let text = transition(&old, &new);
    assert!(text.contains("-X MESH_OLD\n") && text.contains(":MESH_NEW - [0:0]\n") && !text.contains("KUBE"), "{text}");
    // What a restore would leave is what it was asked for.
    let left: String = text
        .lines()
        .filter(|line| !line.starts_with("-D") && !line.contains("MESH_OLD"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(Ruleset::parse(&left, PREFIX), new);
    assert_eq!(transition(&Ruleset::default(), &Ruleset::default()), "");
}

#[test]
fn output_that_is_cut_off_or_garbled_is_no_reason_to_panic() {
    for end in 0..SAVED.len() {
        let _ = Ruleset::parse(&SAVED[..end], PREFIX);
    }
    let _ = Ruleset::parse("-A\n-A \n-A X\n:\n*\n-A MESH_X -j\n-A MESH_X -j ", PREFIX);
}
