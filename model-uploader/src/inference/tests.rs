use super::*;
use crate::client::{TransportError, model_ref};
use crate::retry::RetryPolicy;
use crate::simulation::{FIRST_PAGE_BYTES, SimulatedCanister};
use std::time::Duration;

fn client(canister: &SimulatedCanister) -> Client<&SimulatedCanister> {
    let retry = RetryPolicy { attempts: 3, first_delay: Duration::from_millis(1), max_delay: Duration::from_millis(2) };
    Client::new(canister).with_retry(retry)
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i / 251) as u8).collect()
}

fn tensor(length: usize) -> Tensor {
    Tensor { element_type: ElementType::Uint8, shape: vec![length as u64], data: ByteBuf::from(bytes(length)) }
}

fn label(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[tokio::test]
async fn small_images_go_in_one_message_and_large_ones_in_parts() -> Result<()> {
    for (length, messages) in [(100, 1), (INLINE_BYTES_MAX, 1), (INLINE_BYTES_MAX + 1, 2), (4_000_000, 4)] {
        let canister = SimulatedCanister::default();
        let image = bytes(length);
        let answer =
            classify(&client(&canister), model_ref("m", None), Subject::Image(image.clone()), None, false).await?;
        assert_eq!(answer.answer.labels[0].label, label(&image), "{length}");
        assert_eq!(answer.ingress_messages, messages, "{length}");
        assert!((length as u64..length as u64 + 2000).contains(&answer.ingress_bytes), "{}", answer.ingress_bytes);
        let expected = 1_000_000
            + 5_000_000 * u128::from(messages + 2)
            + 1_200_000 * u128::from(messages)
            + 2_000 * u128::from(answer.ingress_bytes);
        assert_eq!(answer.cycles(), expected);
    }
    Ok(())
}

#[tokio::test]
async fn what_is_staged_already_is_not_sent_again() -> Result<()> {
    let canister = SimulatedCanister::default();
    let subject = || Subject::Tensor(tensor(4_000_000));
    let first = classify(&client(&canister), model_ref("m", None), subject(), None, false).await?;
    let second = classify(&client(&canister), model_ref("m", None), subject(), None, false).await?;
    assert_eq!((first.ingress_messages, second.ingress_messages), (4, 2));
    assert_eq!(second.answer.labels, first.answer.labels);
    Ok(())
}

#[tokio::test]
async fn a_query_is_free_and_sends_no_update() -> Result<()> {
    let canister = SimulatedCanister::default();
    let answer = classify(&client(&canister), model_ref("m", None), Subject::Image(bytes(100)), None, true).await?;
    assert_eq!((answer.cycles(), answer.ingress_messages), (0, 0));
    assert_eq!(canister.state().calls.keys().copied().collect::<Vec<_>>(), ["classify_query"]);
    Ok(())
}

#[tokio::test]
async fn a_job_that_outlives_its_call_is_polled_to_its_end() -> Result<()> {
    let canister = SimulatedCanister::default();
    canister.state().jobs_outlive_calls = true;
    let image = bytes(100);
    let answer = classify(&client(&canister), model_ref("m", None), Subject::Image(image.clone()), None, false).await?;
    assert_eq!((answer.answer.labels[0].label.clone(), answer.polled_job), (label(&image), Some(0)));
    assert_eq!(canister.state().calls["poll"], 4);

    let answer =
        infer(&client(&canister), model_ref("m", None), vec![("x".to_string(), tensor(10))], None, false).await?;
    assert_eq!(answer.answer.outputs[0].data.as_ref(), bytes(10));
    Ok(())
}

#[tokio::test]
async fn a_failed_job_gives_the_canisters_error() -> Result<()> {
    let canister = SimulatedCanister::default();
    canister.state().jobs_outlive_calls = true;
    let reason = Error::CyclesLow { balance: 1u8.into(), reserve: 2u8.into() };
    let client = client(&canister);
    let call = classify(&client, model_ref("m", None), Subject::Image(bytes(9)), None, false);
    let fail = async {
        while !canister.state().calls.contains_key("poll") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        canister.state().fail_jobs(&reason);
    };
    let (result, ()) = tokio::join!(call, fail);
    let error = result.err().context("the job failed")?;
    let call_error = error.downcast_ref::<CallError>().context("typed")?;
    assert_eq!(call_error.canister_error(), Some(&reason));
    Ok(())
}

#[tokio::test]
async fn outputs_come_whole_in_pages_and_large_inputs_are_staged() -> Result<()> {
    let canister = SimulatedCanister::default();
    let inputs = vec![("small".to_string(), tensor(500)), ("large".to_string(), tensor(2_500_000))];
    let answer = infer(&client(&canister), model_ref("m", None), inputs, None, false).await?;
    let outputs = &answer.answer.outputs;
    assert_eq!((outputs[0].data.as_ref(), outputs[1].data.as_ref()), (&bytes(500)[..], &bytes(2_500_000)[..]));
    let calls = canister.state().calls.clone();
    assert_eq!((calls["put_input"], calls["read_output"]), (2, 4));

    // A query leaves no job, so what its reply has no room for is lost.
    let inputs = vec![("x".to_string(), tensor(FIRST_PAGE_BYTES + 1))];
    let error = infer(&client(&canister), model_ref("m", None), inputs, None, true).await.err();
    assert!(error.is_some_and(|e| format!("{e:#}").contains("query")));
    Ok(())
}

#[tokio::test]
async fn an_inference_that_may_have_run_is_not_paid_twice() -> Result<()> {
    let canister = SimulatedCanister::default();
    let failure = |maybe_executed| TransportError::Transient { message: "lost".to_string(), maybe_executed };
    canister.state().failures.push_back(failure(true));
    let client = client(&canister);
    let call = || classify(&client, model_ref("m", None), Subject::Image(bytes(9)), None, false);
    assert!(call().await.is_err());
    assert_eq!(canister.state().calls["classify"], 1);

    canister.state().failures.push_back(failure(false));
    call().await?;
    assert_eq!(canister.state().calls["classify"], 2);
    Ok(())
}
