//! Who pays what: every balance checked by hand against the price list.

use super::*;

/// Instructions that a canister executed since `before`.
fn instructions_since(net: &Net, id: &Principal, before: &Counters) -> u64 {
    net.subnet.counters(id).expect("it exists").instructions - before.instructions
}

#[test]
fn an_update_costs_its_induction_and_its_execution() {
    let (mut net, id) = Net::with_canister();
    let (balance, counters) = (net.cycles(&id), net.subnet.counters(&id).expect("it exists"));
    net.call(id, "echo", vec![1; 100]).expect("a reply");
    let instructions = instructions_since(&net, &id, &counters);
    assert!(instructions > 160_000, "two pages touched alone cost this");
    // Four bytes of method name and a hundred of argument.
    let expected = 1_200_000 + 2_000 * 104 + 5_000_000 + u128::from(instructions);
    assert_eq!(balance - net.cycles(&id), expected);
    let cost = net.subnet.last_message_cost(&id).expect("it executed");
    assert_eq!((cost.instructions, cost.slices), (instructions, 1));
    assert_eq!(cost.cycles, 5_000_000 + u128::from(instructions));
}

#[test]
fn a_trapping_update_costs_as_much() {
    let (mut net, id) = Net::with_canister();
    let (balance, counters) = (net.cycles(&id), net.subnet.counters(&id).expect("it exists"));
    net.call(id, "inc_and_trap", vec![]).expect_err("a trap");
    let expected = 1_200_000 + 2_000 * 12 + 5_000_000 + u128::from(instructions_since(&net, &id, &counters));
    assert_eq!(balance - net.cycles(&id), expected);
}

#[test]
fn a_call_moves_cycles_and_pays_for_transport_and_callback() {
    let (mut net, a) = Net::with_canister();
    let b = net.create_installed();
    let before = [(net.cycles(&a), net.subnet.counters(&a)), (net.cycles(&b), net.subnet.counters(&b))];
    let spent = |net: &Net, id: &Principal, index: usize| {
        let counters = before[index].1.expect("it exists");
        (before[index].0 as i128 - net.cycles(id) as i128, i128::from(instructions_since(net, id, &counters)))
    };
    // A attaches 5e9, B accepts 3e9 of them.
    let argument = call_argument(5_000_000_000, &b, "accept", &3_000_000_000_u64.to_le_bytes());
    let ingress = 1_200_000 + 2_000 * ("call".len() + argument.len()) as i128;
    let reply = net.call(a, "call", argument).expect("a reply");
    assert_eq!(reply, 3_000_000_000_u128.to_le_bytes());

    let (spent_a, instructions_a) = spent(&net, &a, 0);
    // The request carries the method's six bytes and an argument of eight, the response sixteen.
    let transport = 260_000 + 1_000 * (6 + 8) + 1_000 * 16;
    assert_eq!(spent_a, ingress + 2 * 5_000_000 + instructions_a + transport + 3_000_000_000);
    let (spent_b, instructions_b) = spent(&net, &b, 1);
    assert_eq!(spent_b, 5_000_000 + instructions_b - 3_000_000_000);
    let counters = net.subnet.counters(&a).expect("it exists");
    assert_eq!(counters.cycles.transmission as i128, transport);
}

#[test]
fn refused_cycles_come_back() {
    let (mut net, a) = Net::with_canister();
    let b = net.create_installed();
    let argument = call_argument(5_000_000_000, &b, "accept", &1_u64.to_le_bytes());
    net.call(a, "call_then_silence", argument).expect_err("no reply");
    let words = net.words(a);
    assert_eq!(u128::from(words[4]) | u128::from(words[5]) << 64, 4_999_999_999);
    let balance = net.cycles(&a);
    let missing = canister_id(3);
    rejected(net.call(a, "call", call_argument(7_000_000_000, &missing, "inc", b"")));
    assert!(balance - net.cycles(&a) < 1_000_000_000, "attached cycles came back");
}

#[test]
fn a_call_needs_the_reservation_above_the_freezing_limit() {
    let (mut net, a) = Net::with_canister();
    let b = net.create_installed();
    // Enough for an update's prepayment, not for a call's on top of it.
    let limit = net.canister(&a).freezing_limit();
    let needed = prices::execution(prices::MESSAGE_INSTRUCTIONS) + limit + 1_000_000_000;
    net.subnet.canisters.get_mut(&a).expect("it exists").cycles = needed;
    let rejection = net.call(a, "call", call_argument(0, &b, "inc", b"")).expect_err("perform fails");
    // The canister rejects with the four bytes of the code that call_perform returned: transient.
    assert_eq!(rejection.message.as_bytes(), 2_u32.to_le_bytes());
    assert_eq!(net.counter(b), 0);
}

#[test]
fn a_frozen_canister_refuses_and_thaws() {
    let (mut net, id) = Net::with_canister();
    let settings = ic00::CanisterSettings { freezing_threshold: Some((1_u64 << 40).into()), ..Default::default() };
    net.update_settings(id, settings).expect("settings change");
    let rejection = net.call(id, "inc", vec![]).expect_err("it is frozen");
    assert_eq!(
        (rejection.error_code, rejection.reject_code),
        (ErrorCode::CanisterOutOfCycles, RejectCode::SysTransient)
    );
    let needed = prices::ingress(3) + net.canister(&id).freezing_limit() - net.cycles(&id);
    assert_eq!(rejection, errors::out_of_cycles(&id, Some(needed)));
    // Others are not told how much is missing.
    net.sender = Principal::from_slice(&[1, 2, 3]);
    assert_eq!(net.call(id, "inc", vec![]), Err(errors::out_of_cycles(&id, None)));
    net.sender = Principal::anonymous();
    assert_eq!(net.query(id, "get", vec![]), Err(errors::frozen_query(&id)));
    let settings = ic00::CanisterSettings { freezing_threshold: Some(1_u64.into()), ..Default::default() };
    net.update_settings(id, settings).expect("a frozen canister's threshold can be lowered");
    assert_eq!(number(net.call(id, "inc", vec![])), 1);
}

#[test]
fn storage_is_charged_as_time_passes() {
    let (mut net, id) = Net::with_canister();
    let settings = ic00::CanisterSettings {
        memory_allocation: Some((1_u64 << 30).into()),
        compute_allocation: Some(2_u64.into()),
        ..Default::default()
    };
    net.update_settings(id, settings).expect("settings change");
    net.advance(10 * SECOND_NS);
    net.subnet.execute_round();
    let (balance, charged) = (net.cycles(&id), net.canister(&id).charged_until_ns);
    let before = net.subnet.counters(&id).expect("it exists").cycles;
    net.advance(5 * SECOND_NS);
    net.subnet.execute_round();
    assert_eq!(net.cycles(&id), balance, "nothing is charged before ten seconds are over");
    net.subnet.set_time_ns(charged + 1000 * SECOND_NS - 1);
    net.subnet.execute_round();
    // A thousand seconds of one GiB, the base fee, and two percent of a core.
    let (storage, compute) = (1000 * (317_500 + 10_000), 1000 * 2 * 10_000_000);
    assert_eq!(balance - net.cycles(&id), storage + compute);
    let after = net.subnet.counters(&id).expect("it exists").cycles;
    assert_eq!((after.storage - before.storage, after.compute - before.compute), (storage, compute));
    let idle = candid::Nat::from((317_500 + 10_000 + 20_000_000_u64) * 86_400);
    assert_eq!(net.status(id).idle_cycles_burned_per_day, idle);
}

#[test]
fn a_canister_without_cycles_is_uninstalled() {
    let (mut net, id) = Net::with_canister();
    let other = net.create_installed();
    net.hold(&other);
    let message = net.submit(id, "call", call_argument(0, &other, "inc", b"")).expect("accepted");
    net.subnet.execute_round();
    net.subnet.canisters.get_mut(&id).expect("it exists").cycles = 1000;
    net.advance(100 * SECOND_NS);
    net.subnet.execute_round();
    assert_eq!(net.cycles(&id), 0);
    assert!(net.canister(&id).code.is_none());
    assert_eq!(net.answer(&message), Some(Err(errors::uninstalled())));
    net.release(&other);
    net.settle();
    // The answer to its open call brought the rest of the reservation back, and runs nothing.
    assert!(net.canister(&id).calls.is_empty());
    assert!(net.cycles(&id) > 40_000_000_000);
    let last = net.canister(&id).history.back().and_then(|change| change.details.clone());
    assert_eq!(last, Some(ic00::ChangeDetails::CodeUninstall));
}

#[test]
fn install_code_prepays_and_charges_compilation() {
    let mut net = Net::new();
    let id = net.create(prices::execution(prices::INSTALL_INSTRUCTIONS), None);
    let result = net.install(id, ic00::CanisterInstallMode::Install, wasm(), vec![]);
    let rejection = result.expect_err("the freezing limit is not covered");
    assert_eq!(rejection.error_code, ErrorCode::CanisterOutOfCycles);

    let id = net.create(T, None);
    net.install(id, ic00::CanisterInstallMode::Install, wasm(), vec![]).expect("it installs");
    let counters = net.subnet.counters(&id).expect("it exists");
    let code = net.canister(&id).code.as_ref().expect("it is installed");
    let compile = u128::from(code.module.compile_instructions());
    assert!(compile > 20_000_000, "the base of a compilation");
    assert_eq!(counters.cycles.execution, 5_000_000 + compile + u128::from(counters.instructions));
    assert_eq!(net.cycles(&id), T - counters.cycles.execution - counters.cycles.ingress);
}
