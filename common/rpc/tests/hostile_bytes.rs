//! Whatever comes over the wire, decoding it ends in a message or an error: no panic, and no more memory
//! than the bytes could account for. Fails when a peer can end the coordinator, or fill its memory, with
//! a few bytes. `tests/fuzz` searches further with the same functions.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use medevo_rpc::{
    codec::{decode_answer, decode_request, encode},
    service::{CoordinatorRequest, CoordinatorResponse},
};
use medevo_types::{
    Attempt, Digest, Generation, Incarnation, PolicyVersion, Step, UnitId, WorkerTag,
    messages::*,
    settings::{Dtype, LoraSettings, Sampling, TrainSettings},
};
use peak_alloc::PeakAlloc;
use proptest::prelude::*;
use serde::Serialize;
use serde_bytes::ByteBuf;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What a length's word alone may set aside, bytes: serde reserves 1 MiB at most for a sequence, and the
/// deepest message nests a few.
const ON_A_WORD: usize = 6 << 20;
/// What each byte may account for. An empty text is one byte on the wire and 24 in memory, a growing
/// vector holds up to three times what is in it.
const FOR_EACH_BYTE: usize = 80;

/// Decodes as everything that comes over the wire; panics when that takes too much memory.
fn decode(bytes: &[u8]) -> usize {
    // The allocator counts for all threads.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let _ = decode_request(bytes);
    let _ = decode_answer(bytes);
    let taken = MEMORY.peak_usage().saturating_sub(before);
    let most = ON_A_WORD + FOR_EACH_BYTE * bytes.len();
    assert!(taken <= most, "{} bytes made the decoder take {taken}", bytes.len());
    taken
}

fn tag() -> WorkerTag {
    WorkerTag { worker: "w0".into(), incarnation: Incarnation(1_700_000_000_000_000) }
}

fn request(body: CoordinatorRequest) -> Vec<u8> {
    let context = tarpc::context::current();
    encode(&(0_u32, context, 7_u64, body)).unwrap()
}

fn answer(body: CoordinatorResponse) -> Vec<u8> {
    encode(&(7_u64, Ok::<_, u32>(body))).unwrap()
}

fn report(body: Report) -> Vec<u8> {
    let (generation, step, attempt) = (Generation(3), Step(4), Attempt(5));
    let envelope = Envelope { from: tag(), generation, step, attempt, body };
    request(CoordinatorRequest::Report { envelope })
}

fn order(directive: Directive) -> Vec<u8> {
    answer(CoordinatorResponse::Next(Ok(directive)))
}

fn candidate(feature: Option<Vec<f32>>) -> Candidate {
    let logprobs = vec![-0.5; 3];
    Candidate { ids: vec![1, 2, 70_000], text: "héllo".into(), logprobs, finished: true, feature }
}

/// Messages of every kind, as they stand in a frame.
fn messages() -> Vec<Vec<u8>> {
    let digest = || Digest("ab".repeat(32));
    let holding = || Holding { policy: PolicyVersion(9), digest: digest() };
    let prompt = || Prompt {
        sample: "s/1".into(),
        images: vec!["/images/1.png".into()],
        question: "Which organ is shown?".into(),
    };
    let group = Group {
        sample: "s/1".into(),
        prompt_tokens: 300,
        candidates: [candidate(None), candidate(Some(vec![0.5; 40]))].into(),
        entropy: 0.25,
    };
    let (unit, policy) = (UnitId(1 << 40), PolicyVersion(9));
    let file = FileEntry { name: "model.safetensors".into(), bytes: 1 << 33, digest: digest() };
    let ballot = Ballot {
        gradient: digest(),
        finite: true,
        grad_norm: 1.0,
        figures: vec![("loss".into(), 0.5)],
    };
    let engine = EngineSetup {
        model: "/models/tiny".into(),
        dtype: Dtype::F32,
        seed: 1,
        threads: 2,
        max_prompt_tokens: 1000,
        tokens_per_batch: 2000,
        collective_timeout_ms: 30_000,
        freeze_vision: false,
        train: TrainSettings::default(),
        lora: Some(LoraSettings::default()),
    };
    let hello = Hello { tag: tag(), device: "cpu".into(), address: "127.0.0.1".into(), pid: 4_000 };
    let (generation, step, attempt) = (Generation(3), Step(4), Attempt(5));
    let member = Member { tag: tag(), address: "127.0.0.1".into() };
    let answers = vec![TrainAnswer { ids: vec![1, 2], count: 2, advantage: 0.5, logprobs: vec![] }];
    let batches = [
        Batch::Sft { examples: vec![SftExample { prompt: prompt(), answer: "liver".into() }] },
        Batch::Grpo {
            rollout_policy: policy,
            objective: Default::default(),
            temperature: 1.0,
            max_new_tokens: 32,
            reference: Some("/reference".into()),
            groups: vec![TrainGroup { prompt: prompt(), answers: answers.into() }],
        },
    ];
    let mut all = vec![
        request(CoordinatorRequest::Join { hello }),
        request(CoordinatorRequest::Heartbeat { from: tag() }),
        request(CoordinatorRequest::Next { from: tag() }),
        request(CoordinatorRequest::RendezvousSet {
            from: tag(),
            key: "3/rank-0".into(),
            value: ByteBuf::from(vec![9; 50]),
        }),
        request(CoordinatorRequest::RendezvousGet { from: tag(), key: "3/rank-0".into() }),
        request(CoordinatorRequest::RendezvousAdd { from: tag(), key: "3/n".into(), delta: -1 }),
        encode(&(1_u32, tarpc::context::current().trace_context, 7_u64)).unwrap(),
        report(Report::Formed { holding: None }),
        report(Report::Restored { holding: holding() }),
        report(Report::RolloutDone { unit, policy, groups: vec![group] }),
        report(Report::Ballot(ballot)),
        report(Report::CheckpointWritten { files: vec![file] }),
        report(Report::Failed { what: "w".into(), error: "e".into(), retryable: true }),
        report(Report::Leaving),
        answer(CoordinatorResponse::Join(Ok(Welcome {
            run_id: "r".into(),
            lease_ttl_ms: 10_000,
            engine,
        }))),
        answer(CoordinatorResponse::Join(Err(JoinRefused::Full))),
        answer(CoordinatorResponse::Heartbeat(Err(Rejection::StaleIncarnation))),
        answer(CoordinatorResponse::RendezvousGet(Ok(Some(ByteBuf::from(vec![1; 20]))))),
        order(Directive::Wait { reason: "waiting".into() }),
        order(Directive::Form(Roster { generation, members: [member].into(), rank: 0 })),
        order(Directive::Restore(Restore {
            generation,
            policy,
            source: RestoreSource::Peer { root: 0 },
        })),
        order(Directive::Rollout(RolloutUnit {
            unit,
            policy,
            step,
            purpose: Purpose::Train,
            sampling: Sampling::default(),
            features: true,
            prompts: vec![prompt()],
        })),
    ];
    all.extend(batches.map(|batch| {
        order(Directive::Update(UpdateWork { generation, step, attempt, policy, batch }))
    }));
    all
}

#[test]
fn the_messages_here_are_ones() {
    for (index, message) in messages().iter().enumerate() {
        let whole = decode_request(message).is_ok() || decode_answer(message).is_ok();
        assert!(whole, "message {index} is not what a peer would send");
        decode(message);
    }
}

/// The start of a report of candidates, up to the number of groups.
fn report_of(groups: u64, rest: impl Serialize) -> Vec<u8> {
    let context = tarpc::context::current();
    // Request, report, from, generation, step, attempt, RolloutDone, unit, policy.
    let head = (0_u32, context, 7_u64, 3_u32, tag(), (3_u64, 4_u64, 5_u64), 2_u32, 1_u64, 9_u64);
    [encode(&head).unwrap(), encode(&groups).unwrap(), encode(&rest).unwrap()].concat()
}

/// Fails when a length is believed before the bytes are there.
#[test]
fn a_length_from_the_wire_sets_little_aside() {
    let huge = 1_u64 << 60;
    assert!(decode_request(&report_of(0, ())).is_ok(), "the report's start is right");
    let group = ("s", 9_u32, huge);
    let candidate = ("s", 9_u32, 1_u64, huge);
    for message in [
        report_of(huge, ()),
        report_of(u64::MAX, group),
        report_of(huge, candidate),
        report_of(huge, ("s", 9_u32, huge, huge)),
        report_of(1, (huge, ())),
        encode(&(0_u32, tarpc::context::current(), 7_u64, 0_u32, huge)).unwrap(),
        encode(&(7_u64, 0_u32, 2_u32, 0_u32, 1_u32, 3_u64, huge)).unwrap(),
    ] {
        assert!(decode_request(&message).is_err());
        let taken = decode(&message);
        assert!(taken < ON_A_WORD, "{} bytes took {taken}", message.len());
    }
}

#[test]
fn a_deadline_far_ahead_is_an_error() {
    let trace = tarpc::context::current().trace_context;
    let body = || CoordinatorRequest::Heartbeat { from: tag() };
    let with = |deadline: Duration| encode(&(0_u32, (deadline, trace), 1_u64, body())).unwrap();
    assert!(decode_request(&with(Duration::from_secs(30))).is_ok());
    for deadline in [Duration::MAX, Duration::from_secs(1 << 40), Duration::from_secs(7 * 86_400)] {
        assert!(decode_request(&with(deadline)).is_err(), "{deadline:?}");
    }
}

/// What happens to a message on its way.
#[derive(Clone, Debug)]
enum Damage {
    Flip { at: usize, bit: u8 },
    Set { at: usize, byte: u8 },
    Cut { at: usize },
    Insert { at: usize, bytes: Vec<u8> },
    Splice { at: usize, other: usize, from: usize },
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<usize>();
    prop_oneof![
        3 => (at, 0_u8..8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        // 251 to 255 announce longer numbers.
        3 => (at, prop_oneof![any::<u8>(), 250_u8..]).prop_map(|(at, byte)| Damage::Set { at, byte }),
        1 => at.prop_map(|at| Damage::Cut { at }),
        1 => (at, prop::collection::vec(prop_oneof![any::<u8>(), Just(255_u8)], 1..12))
            .prop_map(|(at, bytes)| Damage::Insert { at, bytes }),
        1 => (at, at, at).prop_map(|(at, other, from)| Damage::Splice { at, other, from }),
    ]
}

fn apply(all: &[Vec<u8>], bytes: &mut Vec<u8>, damage: Damage) {
    let place = |at: usize, length: usize| at % length.max(1);
    let length = bytes.len();
    match damage {
        Damage::Flip { at, bit } if length > 0 => bytes[place(at, length)] ^= 1 << bit,
        Damage::Set { at, byte } if length > 0 => bytes[place(at, length)] = byte,
        Damage::Flip { .. } | Damage::Set { .. } => {}
        Damage::Cut { at } => bytes.truncate(place(at, length)),
        Damage::Insert { at, bytes: new } => {
            let at = place(at, length);
            bytes.splice(at..at, new);
        }
        Damage::Splice { at, other, from } => {
            let other = &all[place(other, all.len())];
            bytes.truncate(place(at, length));
            bytes.extend_from_slice(&other[place(from, other.len())..]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        decode(&bytes);
    }

    #[test]
    fn damaged_messages_are_messages_or_errors(
        which in any::<prop::sample::Index>(),
        damages in prop::collection::vec(damage(), 1..6),
    ) {
        let all = messages();
        let mut bytes = which.get(&all).clone();
        for damage in damages {
            apply(&all, &mut bytes, damage);
        }
        decode(&bytes);
    }
}
