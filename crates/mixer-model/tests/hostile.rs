//! Weights files that somebody made to do harm. Each is refused with one line and a hint, without a
//! panic, in a moment, and without more memory than its size justifies.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../mixer-jpeg/tests/common/allocation.rs"]
mod allocation;

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::DeflateEncoder;
use mixer_model::internals::justified_bytes;
use mixer_model::{Gelu, MixerConfig, ModelError, Weights, parameters};

#[global_allocator]
static ALLOCATOR: allocation::Counting = allocation::Counting;

/// No refusal takes that long, even on a busy machine; the runaway ones take hours.
const MAX_TIME: Duration = Duration::from_secs(20);

/// Checks that each file is refused as it has to be, with the words of its row.
fn all_are_refused(format: &str, rows: Vec<(&str, Vec<u8>, &str)>) {
    let path = Path::new("hostile");
    for (what, bytes, expected) in rows {
        let start = Instant::now();
        let mut read = None;
        let peak = allocation::peak_of(|| read = Some(Weights::from_bytes(&bytes, path, None)));
        let list_peak = allocation::peak_of(|| drop(Weights::bytes_info(&bytes, path)));
        let (elapsed, most) = (start.elapsed(), justified_bytes(bytes.len()));
        let error = read.unwrap().err().unwrap_or_else(|| panic!("{what}: was read"));
        let message = error.to_string();
        assert!(message.contains(expected), "{what}: {message}, expected {expected}");
        assert_eq!(message.lines().count(), 1, "{what}: {message}");
        assert!(message.ends_with(": hostile"), "{what}: no path last: {message}");
        if let ModelError::Unreadable { hint, .. } = &error {
            assert!(hint.is_some(), "{what}: no hint");
        } else {
            assert!(matches!(error, ModelError::NotAMixer { .. }), "{what}: {error:?}");
        }
        assert!(elapsed < MAX_TIME, "{what}: took {elapsed:?}");
        let peak = peak.max(list_peak);
        assert!(peak <= most, "{what}: {} bytes made the reader hold {peak}", bytes.len());
        println!("{format:<12} {what:<56} {:>9} bytes, held {peak:>9}", bytes.len());
    }
}

// npz.

fn npy(dictionary: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(dictionary.len()).unwrap().to_le_bytes());
    bytes.extend(dictionary.as_bytes());
    bytes.extend(data);
    bytes
}

fn npy_of(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    npy(&format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"), data)
}

/// A member as it is written, with what the two headers say of it.
#[derive(Clone)]
struct Member {
    name: String,
    method: u16,
    flags: u16,
    stored: Vec<u8>,
    /// Checksum, stored bytes, bytes.
    local: (u32, u32, u32),
    directory: (u32, u32, u32),
    /// Beginning by the directory's words; the true one, otherwise.
    start: Option<u32>,
}

impl Member {
    fn stored(name: &str, content: &[u8]) -> Self {
        Self::new(name, 0, content.to_vec(), content)
    }

    fn deflated(name: &str, content: &[u8]) -> Self {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(content).unwrap();
        Self::new(name, 8, encoder.finish().unwrap(), content)
    }

    fn new(name: &str, method: u16, stored: Vec<u8>, content: &[u8]) -> Self {
        let sizes = (
            crc32fast::hash(content),
            u32::try_from(stored.len()).unwrap(),
            u32::try_from(content.len()).unwrap(),
        );
        let name = name.to_owned();
        Self { name, method, flags: 0, stored, local: sizes, directory: sizes, start: None }
    }

    fn saying(mut self, change: impl Fn(&mut (u32, u32, u32))) -> Self {
        change(&mut self.local);
        change(&mut self.directory);
        self
    }
}

fn zip(members: &[Member]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut directory = Vec::new();
    for member in members {
        let start = member.start.unwrap_or(bytes.len() as u32);
        let name_bytes = member.name.len() as u16;
        bytes.extend(0x0403_4b50_u32.to_le_bytes());
        for field in [20, member.flags, member.method, 0, 0] {
            bytes.extend(u16::to_le_bytes(field));
        }
        for field in [member.local.0, member.local.1, member.local.2] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend([name_bytes, 0].map(u16::to_le_bytes).concat());
        bytes.extend(member.name.as_bytes());
        bytes.extend(&member.stored);

        directory.extend(0x0201_4b50_u32.to_le_bytes());
        for field in [20, 20, member.flags, member.method, 0, 0] {
            directory.extend(u16::to_le_bytes(field));
        }
        for field in [member.directory.0, member.directory.1, member.directory.2] {
            directory.extend(field.to_le_bytes());
        }
        directory.extend([name_bytes, 0, 0, 0, 0, 0, 0].map(u16::to_le_bytes).concat());
        directory.extend(start.to_le_bytes());
        directory.extend(member.name.as_bytes());
    }
    let (start, count) = (bytes.len() as u32, members.len() as u16);
    let directory_bytes = directory.len() as u32;
    bytes.extend(directory);
    bytes.extend(0x0605_4b50_u32.to_le_bytes());
    bytes.extend([0, 0, count, count].map(u16::to_le_bytes).concat());
    bytes.extend([directory_bytes, start].map(u32::to_le_bytes).concat());
    bytes.extend([0, 0]);
    bytes
}

fn npz(array: &[u8]) -> Vec<u8> {
    zip(&[Member::deflated("a.npy", array)])
}

#[test]
fn archives_that_lie_are_refused() {
    let sound = npy_of("<f4", "(2,)", &[0; 8]);
    let one = Member::stored("a.npy", &sound);
    let zeros = npy_of("<f4", "(8388608,)", &vec![0; 32 << 20]);
    let bomb = Member::deflated("a.npy", &zeros);
    assert!(bomb.stored.len() * 500 < zeros.len(), "it is a bomb");
    // The same bytes under many names: the smallest bomb there is.
    let overlapping: Vec<Member> = (0..200)
        .map(|i| {
            let mut member = one.clone();
            member.name = format!("{i:03}.npy");
            if i > 0 {
                member.stored.clear();
                member.start = Some(0);
            }
            member
        })
        .collect();
    let mut same_name = overlapping[0].clone();
    same_name.name = "b.npy".to_owned();
    let second_over_first = [one.clone(), Member { start: Some(20), ..one.clone() }];
    let mut long = Member::deflated("a.npy", &npy_of("<f4", "(2,)", &[0; 800]));
    let claims = (long.local.0, long.local.1, sound.len() as u32);
    (long.local, long.directory) = (claims, claims);
    let many_disks = {
        let mut bytes = zip(std::slice::from_ref(&one));
        let at = bytes.len() - 22 + 4;
        bytes[at] = 1;
        bytes
    };
    let many_members = {
        let mut bytes = zip(std::slice::from_ref(&one));
        let at = bytes.len() - 22 + 8;
        bytes[at..at + 4].fill(0xff);
        bytes
    };
    let zip64 = {
        let mut bytes = zip(std::slice::from_ref(&one));
        let end = bytes.split_off(bytes.len() - 22);
        let record = bytes.len() as u64;
        bytes.extend(0x0606_4b50_u32.to_le_bytes());
        bytes.extend([0; 20]);
        bytes.extend([1_u64, 1 << 40, u64::MAX - 5, 1 << 60].map(u64::to_le_bytes).concat());
        bytes.extend(0x0706_4b50_u32.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(record.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(end);
        bytes
    };
    let rows = vec![
        ("a bomb of 32 MiB in 32 kB", zip(&[bomb]), "expected at most"),
        ("200 arrays in one place", zip(&overlapping), "another header than the directory"),
        ("two members that overlap", zip(&second_over_first), "has another header"),
        (
            "one member listed twice under one name",
            zip(&[one.clone(), one.clone()]),
            "two members `a.npy`",
        ),
        (
            "a directory whose entry begins within a member",
            zip(&[one.clone(), Member { start: Some(3), ..same_name.clone() }]),
            "another header",
        ),
        (
            "stored bytes that reach over the next member",
            zip(&[
                one.clone().saying(|sizes| (sizes.1, sizes.2) = (sizes.1 + 50, sizes.2 + 50)),
                Member::stored("b.npy", &sound),
            ]),
            "over one another",
        ),
        (
            "a size that deflate cannot reach",
            zip(&[one.clone().saying(|sizes| sizes.2 = u32::MAX - 1)]),
            "claims 4294967294 bytes",
        ),
        (
            "more bytes in the directory than in the header",
            zip(&[Member {
                directory: (one.local.0, one.local.1 + 1, one.local.2 + 1),
                ..one.clone()
            }]),
            "another header than the directory",
        ),
        (
            "another name in the header",
            {
                let mut bytes = zip(std::slice::from_ref(&one));
                bytes[30] = b'b';
                bytes
            },
            "another header than the directory",
        ),
        (
            "a member that unpacks to more than it says",
            zip(&[long]),
            "longer than the archive says",
        ),
        ("an encrypted member", zip(&[Member { flags: 1, ..one.clone() }]), "is encrypted"),
        ("another packer", zip(&[Member { method: 12, ..one.clone() }]), "packed by method 12"),
        (
            "a checksum of something else",
            zip(&[one.clone().saying(|sizes| sizes.0 ^= 1)]),
            "does not have its checksum",
        ),
        ("a part of several volumes", many_disks, "more than one volume"),
        ("65535 members in 51 bytes", many_members, "65535 members"),
        ("a ZIP64 directory beyond everything", zip64, "directory of"),
        ("an end without a beginning", b"PK\x05\x06".to_vec(), "no end record"),
    ];
    // Some reasons come up only when the arrays are read.
    let rows = rows
        .into_iter()
        .map(|(what, bytes, reason)| {
            let is_read = ["longer than", "checksum"].iter().any(|word| reason.contains(word));
            (what, bytes, if is_read { "not the weights" } else { reason })
        })
        .collect();
    all_are_refused("npz", rows);
}

#[test]
fn arrays_that_lie_are_refused() {
    let sized = |shape: &str| npz(&npy_of("<f4", shape, &[0; 8]));
    let endless = b"\x93NUMPY\x02\x00\xff\xff\x00\x00".to_vec();
    let spaces = npy(&format!("{{'descr': '<f4',{}", " ".repeat(60_000)), &[]);
    let many_axes = format!("({})", "1, ".repeat(20_000));
    // Each has a header of 64 kB, packed to some hundred bytes.
    let long_headers: Vec<Member> = (0..500)
        .map(|i| Member::deflated(&format!("{i}.npy"), &npy_of("<f4", &many_axes, &[0; 4])))
        .collect();
    let long_type = format!("<U{}", "0".repeat(60_000));
    let rows = vec![
        ("a product that overflows", sized("(4294967296, 4294967296)"), "overflows"),
        ("2^63 values", sized("(9223372036854775808,)"), "overflows"),
        ("2^64 values", sized("(18446744073709551616,)"), "bad shape"),
        ("a negative size", sized("(-2,)"), "bad shape"),
        ("2^62 bytes", sized("(1152921504606846976,)"), "needs 4611686018427387904 bytes"),
        ("more values than bytes", sized("(3,)"), "needs 12 bytes, the member holds 8"),
        ("fewer values than bytes", sized("(1,)"), "needs 4 bytes, the member holds 8"),
        ("20 000 axes", sized(&many_axes), "more axes than 8"),
        ("500 headers of 64 kB", zip(&long_headers), "more axes than 8"),
        ("pickled objects", npz(&npy_of("|O", "()", b"\x80\x02cos\nsystem\n.")), "pickled Python"),
        ("a structure", npz(&npy("{'descr': [('a', '<f4')], }", &[])), "structured"),
        ("an element type of 60 kB", npz(&npy_of(&long_type, "(0,)", &[])), "element type of"),
        ("elements of 2^63 bytes", npz(&npy_of("|V9223372036854775808", "(4,)", &[])), "overflows"),
        ("a header without end", npz(&endless), "unreadable header"),
        ("a dictionary without end", npz(&spaces), "bad header"),
        ("nothing", npz(&[]), "unreadable header"),
        ("a shape of commas", sized(&format!("({})", ",".repeat(60_000))), "needs 4 bytes"),
        ("no arrays", zip(&[]), "neither .npy members nor data.pkl"),
    ];
    all_are_refused("npz", rows);
}

// pth.

/// A PyTorch archive with this pickle, and a storage `0` of 16 bytes.
fn pth(pickle: &[u8]) -> Vec<u8> {
    zip(&[
        Member::stored("m/data.pkl", pickle),
        Member::stored("m/byteorder", b"little"),
        Member::stored("m/data/0", &[0; 16]),
    ])
}

fn text(text: &str) -> Vec<u8> {
    [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

/// A number as the shortest pickle of it.
fn int(value: i64) -> Vec<u8> {
    [&b"\x8a\x08"[..], &value.to_le_bytes()].concat()
}

fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [&b"("[..], &items.concat(), b"t"].concat()
}

fn sizes(values: &[i64]) -> Vec<u8> {
    tuple(&values.iter().map(|value| int(*value)).collect::<Vec<_>>())
}

fn storage(class: &str, key: &str, len: i64) -> Vec<u8> {
    let class = format!("c{}\n", class.replace('.', "\n")).into_bytes();
    [tuple(&[text("storage"), class, text(key), text("cpu"), int(len)]), b"Q".to_vec()].concat()
}

fn tensor(storage: &[u8], offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let function = b"ctorch._utils\n_rebuild_tensor_v2\n".to_vec();
    let arguments = [storage.to_vec(), int(offset), sizes(shape), sizes(strides)];
    let rest = [b"\x89".to_vec(), b"}".to_vec()];
    [function, tuple(&[&arguments[..], &rest[..]].concat()), b"R".to_vec()].concat()
}

/// A pickle of a dictionary with one key.
fn dict_of(value: &[u8]) -> Vec<u8> {
    [b"\x80\x02}".to_vec(), text("head.weight"), value.to_vec(), b"s.".to_vec()].concat()
}

fn call(module: &str, name: &str, argument: &str) -> Vec<u8> {
    let global = format!("c{module}\n{name}\n").into_bytes();
    [global, tuple(&[text(argument)]), b"R".to_vec()].concat()
}

#[test]
fn pickles_that_would_run_something_are_refused_and_run_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let command = format!("touch {}", trace.display());
    let built = [b"cbuiltins\nobject\n)\x81}b".to_vec()].concat();
    let stack_global =
        [text("os"), text("system"), b"\x93".to_vec(), tuple(&[text(&command)]), b"R".to_vec()]
            .concat();
    let rebuilt = [
        b"ctorch._utils\n_rebuild_parameter\n".to_vec(),
        tuple(&[call("os", "system", &command)]),
        b"R".to_vec(),
    ]
    .concat();
    let instance = [b"(".to_vec(), text(&command), b"ios\nsystem\n".to_vec()].concat();
    let object = [b"(cos\nsystem\n".to_vec(), text(&command), b"o".to_vec()].concat();
    let hidden = [call("os", "system", &command), b"0".to_vec(), b"N".to_vec()].concat();
    let as_id = [call("os", "system", &command), b"Q".to_vec()].concat();
    let rows = vec![
        ("os.system", pth(&dict_of(&call("os", "system", &command))), "calls `os.system`"),
        ("posix.system", pth(&dict_of(&call("posix", "system", &command))), "calls `posix.system`"),
        ("builtins.eval", pth(&dict_of(&call("builtins", "eval", "1"))), "calls `builtins.eval`"),
        (
            "exec of Python 2",
            pth(&dict_of(&call("__builtin__", "exec", "1"))),
            "`__builtin__.exec`",
        ),
        (
            "builtins.getattr",
            pth(&dict_of(&call("builtins", "getattr", "x"))),
            "`builtins.getattr`",
        ),
        ("torch.load", pth(&dict_of(&call("torch", "load", "x"))), "calls `torch.load`"),
        ("runpy", pth(&dict_of(&call("runpy", "_run_code", "1"))), "calls `runpy._run_code`"),
        ("a name from the stack", pth(&dict_of(&stack_global)), "calls `os.system`"),
        ("an object with a state", pth(&dict_of(&built)), "calls `builtins.object`"),
        ("INST", pth(&dict_of(&instance)), "instruction 0x69"),
        ("OBJ", pth(&dict_of(&object)), "instruction 0x6f"),
        ("EXT1", pth(&dict_of(b"\x82\x01")), "instruction 0x82"),
        ("a call whose result is dropped", pth(&dict_of(&hidden)), "calls `os.system`"),
        ("a call that gives a storage", pth(&dict_of(&as_id)), "calls `os.system`"),
        ("a call within a parameter", pth(&dict_of(&rebuilt)), "calls `os.system`"),
        ("a bare pickle", dict_of(&call("os", "system", &command)), "calls `os.system`"),
        (
            "a whole module",
            pth(&dict_of(&call("torch.nn.modules.linear", "Linear", "x"))),
            "Linear",
        ),
        ("a call of a text", pth(&dict_of(&[text("x"), b")R".to_vec()].concat())), "no function"),
    ];
    all_are_refused("pth", rows);
    assert!(!trace.exists(), "something was run");
}

/// A checkpoint of a whole network under `state_dict`, with `beside` under another key; `head.bias` is
/// `replaced` where it is given, and every tensor is marked as FSDP marks it.
fn checkpoint(beside: &[u8], replaced: Option<&[u8]>) -> Vec<u8> {
    let config = MixerConfig {
        image_size: 8,
        patch_size: 4,
        hidden_dim: 3,
        tokens: mixer_model::TokenLayer::Mlp { tokens_mlp_dim: 2 },
        channels_mlp_dim: 5,
        num_blocks: 1,
        num_classes: 6,
        gelu: Gelu::Erf,
    };
    let mut members = vec![Member::stored("m/byteorder", b"little")];
    let mut items = Vec::new();
    for (i, spec) in parameters(&config).into_iter().enumerate() {
        let len = spec.num_values();
        let shape: Vec<i64> = spec.shape.iter().map(|&size| size as i64).collect();
        let strides: Vec<i64> =
            (1..=shape.len()).map(|axis| shape[axis..].iter().product()).collect();
        let arguments = tuple(&[
            storage("torch.FloatStorage", &i.to_string(), len as i64),
            int(0),
            sizes(&shape),
            sizes(&strides),
            b"\x89".to_vec(),
            b"}".to_vec(),
        ]);
        let marked = [
            b"ctorch._tensor\n_rebuild_from_type_v2\n".to_vec(),
            tuple(&[
                b"ctorch._utils\n_rebuild_tensor_v2\n".to_vec(),
                b"ctorch\nTensor\n".to_vec(),
                arguments,
                [b"}".to_vec(), text("_has_been_cloned"), b"\x88s".to_vec()].concat(),
            ]),
            b"R".to_vec(),
        ]
        .concat();
        let replaced = replaced.filter(|_| spec.name == "head.bias");
        items.extend([text(&spec.name), replaced.map_or(marked, <[u8]>::to_vec)].concat());
        members.push(Member::stored(&format!("m/data/{i}"), &vec![0; 4 * len as usize]));
    }
    let parts = [
        b"\x80\x02}(".to_vec(),
        text("state_dict"),
        b"}(".to_vec(),
        items,
        b"u".to_vec(),
        text("beside"),
        beside.to_vec(),
        b"u.".to_vec(),
    ];
    members.push(Member::stored("m/data.pkl", &parts.concat()));
    zip(&members)
}

#[test]
fn objects_of_which_nothing_is_known_decide_nothing_beside_the_weights() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let command = call("os", "system", &format!("touch {}", trace.display()));
    let unknown_storage = tensor(&storage("torch.QInt8Storage", "x", 4), 0, &[4], &[1]);
    let shared = [
        b"}(".to_vec(),
        text("first"),
        tensor(&storage("torch.FloatStorage", "0", 144), 0, &[], &[]),
        b"q\x01".to_vec(),
        (0..12).flat_map(|i| [text(&i.to_string()), b"h\x01".to_vec()].concat()).collect(),
        b"u".to_vec(),
    ]
    .concat();
    for (what, beside) in [
        ("a call", command.clone()),
        ("a path of Python 3.13", call("pathlib._local", "PosixPath", "/data")),
        ("a call of what a call gave", [command.clone(), tuple(&[]), b"R".to_vec()].concat()),
        ("an object with items", [command.clone(), text("a"), b"Ns".to_vec()].concat()),
        ("an object with a state", [command.clone(), b"}b".to_vec()].concat()),
        ("a tensor of an unknown type", unknown_storage),
        ("a tensor under thirteen names", shared),
    ] {
        let bytes = checkpoint(&beside, None);
        let weights = Weights::from_bytes(&bytes, Path::new("beside"), None);
        let weights = weights.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((weights.config.num_blocks, weights.config.num_classes), (1, 6), "{what}");
        Weights::bytes_info(&bytes, Path::new("beside")).unwrap().architecture.unwrap();
    }
    let rows = vec![("a call for a tensor", checkpoint(b"N", Some(&command)), "calls `os.system`")];
    all_are_refused("pth", rows);
    assert!(!trace.exists(), "something was run");
}

#[test]
fn programs_of_torchscript_are_named_with_the_way_to_convert_them() {
    let bytes = zip(&[
        Member::stored("m/data.pkl", b"\x80\x02c__torch__\nNet\n)\x81."),
        Member::stored("m/constants.pkl", b"\x80\x02)."),
        Member::deflated("m/code/__torch__.py", b"class Net(Module):"),
    ]);
    match Weights::from_bytes(&bytes, Path::new("net.pt"), None).unwrap_err() {
        ModelError::Unreadable { reason, hint, .. } => {
            assert_eq!(reason, "a program of TorchScript, expected weights");
            assert!(hint.unwrap().contains("torch.jit.load"), "{hint:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn pickles_that_grow_without_end_are_refused() {
    let nested = |open: &[u8], close: &[u8], count: usize| {
        dict_of(&[open.repeat(count), b"N".to_vec(), close.repeat(count)].concat())
    };
    // A list of two times the list before, 40 times: 2^40 objects for who copies.
    let mut doubled = b"]q\x00".to_vec();
    for i in 0..40_u8 {
        doubled.extend(
            [b"0](h".to_vec(), vec![i], b"h".to_vec(), vec![i], b"eq".to_vec(), vec![i + 1]]
                .concat(),
        );
    }
    let mut doubled_dicts = b"}q\x00".to_vec();
    for i in 0..12_u8 {
        let both = [text("a"), b"h".to_vec(), vec![i], text("b"), b"h".to_vec(), vec![i]].concat();
        doubled_dicts.extend([b"0}(".to_vec(), both, b"uq".to_vec(), vec![i + 1]].concat());
    }
    let itself = [b"\x80\x02}q\x00".to_vec(), text("a"), b"h\x00s.".to_vec()].concat();
    let list_of_itself = dict_of(b"]q\x00h\x00a");
    let long_name = [b"}q\x01".to_vec(), text(&"x".repeat(600)), b"}s".to_vec()].concat();
    // A long name, and below it many short ones, each of which is long with it.
    let mut names = [b"}".to_vec(), text(&"x".repeat(400)), b"}(".to_vec()].concat();
    names.extend(text("k"));
    names.extend(b"q\x05}q\x06".to_vec());
    names.extend((0..60_000_i32).flat_map(|i| [&b"J"[..], &i.to_le_bytes(), b"}"].concat()));
    names.extend(b"us".to_vec());
    let mut nested_dicts = Vec::new();
    for _ in 0..5000 {
        nested_dicts.extend([b"}".to_vec(), text("a")].concat());
    }
    nested_dicts.extend(b"N");
    nested_dicts.extend(b"s".repeat(5000));
    let length = |code: &[u8], length: &[u8]| dict_of(&[code, length, b"abc"].concat());
    let rows = vec![
        ("100 000 lists in each other", pth(&nested(b"]", b"a", 100_000)), "not the weights"),
        ("100 000 tuples in each other", pth(&nested(b"(", b"t", 80_000)), "not the weights"),
        ("5 000 dictionaries in each other", pth(&dict_of(&nested_dicts)), "nest deeper than 16"),
        ("2^40 lists by reference", pth(&dict_of(&doubled)), "not the weights"),
        ("2^12 dictionaries by reference", pth(&dict_of(&doubled_dicts)), "more than 4 names"),
        ("a dictionary that is in itself", pth(&itself), "more than 4 names"),
        ("a list that is in itself", pth(&list_of_itself), "not the weights"),
        ("a million objects", pth(&dict_of(&b"]".repeat(1_000_000))), "more than 262144 objects"),
        (
            "a million copies",
            pth(&dict_of(&[b"N".to_vec(), b"2".repeat(1_000_000)].concat())),
            "more than 262144",
        ),
        ("a million marks", pth(&dict_of(&b"(".repeat(1_000_000))), "more than 262144"),
        (
            "a million numbers for one object",
            pth(&dict_of(&[b"N".to_vec(), b"\x94".repeat(1_000_000)].concat())),
            "more than 262144",
        ),
        ("object number 2^32 - 1", pth(&dict_of(b"N0j\xff\xff\xff\xff")), "object 4294967295"),
        ("a name of 600 bytes", pth(&dict_of(&long_name)), "a name of"),
        ("60 000 names of 400 bytes", pth(&dict_of(&names)), "a name of"),
        ("a text of 4 GB", pth(&length(b"X", &[0xff; 4])), "truncated: 4294967295 bytes"),
        (
            "a text of 2^64 bytes",
            pth(&length(b"\x8d", &[0xff; 8])),
            "truncated: 18446744073709551615",
        ),
        (
            "bytes of 2^63",
            pth(&length(b"\x8e", &(1_u64 << 63).to_le_bytes())),
            "truncated: 92233720",
        ),
        ("a byte array of 2^64", pth(&length(b"\x96", &[0xff; 8])), "truncated"),
        ("an integer of 4 GB", pth(&length(b"\x8b", &[0xff; 4])), "truncated: 4294967295 bytes"),
        ("a string of 2 GB", pth(&length(b"T", &[0xff, 0xff, 0xff, 0x7f])), "truncated"),
        ("more taken than there is", pth(b"\x80\x02\x87."), "takes more objects"),
        ("a mark that is not there", pth(b"\x80\x02t."), "takes more objects"),
        ("no end", pth(b"\x80\x02}"), "truncated"),
        ("two ends", pth(b"\x80\x02NN."), "more than one object"),
        ("a key without a value", pth(b"\x80\x02}(Nu."), "a key without a value"),
        ("items for a number", pth(b"\x80\x02K\x01NNs."), "no dictionary"),
        ("protocol 9", pth(b"\x80\x09}."), "protocol 9"),
        (
            "a name without end",
            pth(&[&b"\x80\x02c"[..], &[b'a'; 5000]].concat()),
            "a name without end",
        ),
        ("a number for a checkpoint", pth(b"\x80\x02K\x01."), "no dictionary"),
    ];
    all_are_refused("pth", rows);
}

#[test]
fn tensors_that_do_not_lie_in_their_storage_are_refused() {
    let float = |len| storage("torch.FloatStorage", "0", len);
    let of = |offset, shape: &[i64], strides: &[i64]| {
        pth(&dict_of(&tensor(&float(4), offset, shape, strides)))
    };
    let twice_typed = [
        b"\x80\x02}".to_vec(),
        text("a"),
        tensor(&float(4), 0, &[4], &[1]),
        b"s".to_vec(),
        text("b"),
        tensor(&storage("torch.DoubleStorage", "0", 2), 0, &[2], &[1]),
        b"s.".to_vec(),
    ];
    let shared = [
        b"\x80\x02}".to_vec(),
        tensor(&float(4), 0, &[4], &[1]),
        b"q\x010(".to_vec(),
        (0..40_000_i32).flat_map(|i| [&b"J"[..], &i.to_le_bytes(), b"h\x01"].concat()).collect(),
        b"u.".to_vec(),
    ]
    .concat();
    let axes = vec![1; 20_000];
    let rows = vec![
        ("one value too many", of(0, &[5], &[1]), "ends at element 5 of 4"),
        ("one value too far", of(1, &[4], &[1]), "ends at element 5 of 4"),
        ("a step too far", of(0, &[2], &[4]), "ends at element 5 of 4"),
        ("an offset of 2^62", of(1 << 62, &[1], &[1]), "ends at element"),
        ("an empty tensor behind the end", of(5, &[0], &[1]), "ends at element 5 of 4"),
        ("a negative offset", of(-1, &[1], &[1]), "without offset"),
        ("a negative size", of(0, &[-1], &[1]), "without shape"),
        ("a negative step", of(3, &[4], &[-1]), "without strides"),
        ("2^40 times one value", of(0, &[1 << 40], &[0]), "every element once"),
        ("rows over one another", of(0, &[2, 2], &[1, 1]), "every element once"),
        (
            "a product that overflows",
            of(0, &[1 << 40, 1 << 40], &[1 << 40, 1]),
            "every element once",
        ),
        ("a step that overflows", of(0, &[4], &[i64::MAX]), "every element once"),
        ("2^63 values, none of them", of(0, &[i64::MAX, 4, 0], &[1, 1, 1]), "every element once"),
        ("fewer steps than sizes", of(0, &[2, 2], &[1]), "with strides [1]"),
        ("20 000 axes", of(0, &axes, &axes), "without shape"),
        ("40 000 names for one tensor", pth(&shared), "more than 4 names"),
        (
            "a storage of 2^62 values",
            pth(&dict_of(&tensor(&float(1 << 62), 0, &[4], &[1]))),
            "a storage of 4611686018427387904 elements",
        ),
        (
            "a storage that is larger than its member",
            pth(&dict_of(&tensor(&float(1 << 40), 0, &[1 << 40], &[1]))),
            "`m/data/0` has 16 bytes, expected 4398046511104",
        ),
        (
            "a storage that is not there",
            pth(&dict_of(&tensor(&storage("torch.FloatStorage", "../../x", 4), 0, &[4], &[1]))),
            "not the weights",
        ),
        ("a storage of two types", pth(&twice_typed.concat()), "`0` in two forms"),
        (
            "an unknown element type",
            pth(&dict_of(&tensor(&storage("torch.QInt8Storage", "0", 4), 0, &[4], &[1]))),
            "torch.QInt8Storage",
        ),
        (
            "a quantised tensor",
            pth(&dict_of(&call("torch._utils", "_rebuild_qtensor", "x"))),
            "calls `torch._utils._rebuild_qtensor`",
        ),
        (
            "a storage of three parts",
            pth(&dict_of(&[tuple(&[text("storage"), int(1), int(1)]), b"Q".to_vec()].concat())),
            "a storage of 3 parts",
        ),
        (
            "a packed pickle",
            zip(&[Member::deflated("m/data.pkl", &dict_of(&b"]".repeat(1_000_000)))]),
            "is packed, which PyTorch never does",
        ),
        (
            "a packed storage",
            zip(&[
                Member::stored(
                    "m/data.pkl",
                    &dict_of(&tensor(&float(1 << 22), 0, &[1 << 22], &[1])),
                ),
                Member::deflated("m/data/0", &vec![0; 16 << 20]),
            ]),
            "is packed, which PyTorch never does",
        ),
        (
            "the other byte order",
            zip(&[
                Member::stored("m/data.pkl", b"\x80\x02}."),
                Member::stored("m/byteorder", b"big"),
            ]),
            "byte order `big`",
        ),
        ("no tensors at all", pth(b"\x80\x02}."), "holds no tensors"),
        (
            "data.pkl in a name",
            zip(&[Member::stored("xdata.pkl", b"\x80\x02}.")]),
            "without `data.pkl`",
        ),
    ];
    all_are_refused("pth", rows);
}

#[test]
fn legacy_files_that_lie_are_refused() {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let machine = |flag: &[u8]| {
        [b"\x80\x02}".to_vec(), text("little_endian"), flag.to_vec(), b"s.".to_vec()].concat()
    };
    let keys = |keys: &[&str]| {
        let keys: Vec<u8> = keys.iter().flat_map(|key| text(key)).collect();
        [b"\x80\x02](".to_vec(), keys, b"e.".to_vec()].concat()
    };
    let tensors = dict_of(&tensor(&storage("torch.FloatStorage", "7", 4), 0, &[4], &[1]));
    let file = |version: &[u8], machine: &[u8], keys: &[u8], rest: &[u8]| {
        [&magic[..], version, machine, &tensors, keys, rest].concat()
    };
    let version = b"\x80\x02M\xe9\x03.";
    let (little, one) = (machine(b"\x88"), keys(&["7"]));
    let storage = |len: u64, bytes: usize| [len.to_le_bytes().to_vec(), vec![0; bytes]].concat();
    let tar = {
        let mut header = vec![0; 1024];
        header[..8].copy_from_slice(b"storages");
        header[124..136].copy_from_slice(b"77777777777\0");
        // A sparse member that claims to be as long as its header can say.
        header[156] = b'S';
        header[257..262].copy_from_slice(b"ustar");
        header
    };
    let rows = vec![
        (
            "another version",
            file(b"\x80\x02M\xea\x03.", &little, &one, &storage(4, 16)),
            "version Some(1002)",
        ),
        (
            "the other byte order",
            file(version, &machine(b"\x89"), &one, &storage(4, 16)),
            "little-endian",
        ),
        ("no byte order", file(version, b"\x80\x02}.", &one, &storage(4, 16)), "little-endian"),
        (
            "a storage of 2^60 values",
            file(version, &little, &one, &storage(1 << 60, 16)),
            "of 1152921504606846976 elements, expected 4",
        ),
        (
            "a storage that ends after the file",
            file(version, &little, &one, &storage(4, 12)),
            "ends after the file",
        ),
        (
            "a storage twice",
            file(version, &little, &keys(&["7", "7"]), &[storage(4, 16), storage(4, 16)].concat()),
            "there twice",
        ),
        (
            "a storage of no tensor",
            file(version, &little, &keys(&["8"]), &storage(4, 16)),
            "`8`, which no tensor has",
        ),
        (
            "no list of storages",
            file(version, &little, b"\x80\x02}.", &storage(4, 16)),
            "no list of storages",
        ),
        ("bytes behind", file(version, &little, &one, &storage(4, 20)), "4 bytes follow"),
        ("nothing behind the magic number", magic.to_vec(), "truncated"),
        ("a pickle of nothing else", b"\x80\x02}.".to_vec(), "a pickle without tensors"),
    ];
    all_are_refused("pth", rows);
    let message = Weights::from_bytes(&tar, Path::new("hostile"), None).unwrap_err().to_string();
    assert!(message.contains("a tar archive, expected none"), "{message}");
}

// safetensors.

fn with_length(length: u64, json: &str, data: usize) -> Vec<u8> {
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(json.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn safetensors(json: &str, data: usize) -> Vec<u8> {
    with_length(json.len() as u64, json, data)
}

fn entry(name: &str, dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{offsets}]}}"#)
}

fn header(entries: &[String]) -> String {
    format!("{{{}}}", entries.join(","))
}

#[test]
fn headers_that_lie_are_refused() {
    let one = |dtype: &str, shape: &str, offsets: &str, data| {
        safetensors(&header(&[entry("a", dtype, shape, offsets)]), data)
    };
    let two = |first: &str, second: &str, data| {
        let entries = [entry("a", "F32", "1", first), entry("b", "F32", "1", second)];
        safetensors(&header(&entries), data)
    };
    let nested = |open: &str| safetensors(&format!("{{\"a\":{}", open.repeat(100_000)), 0);
    let nested_info = format!(r#"{{"a":{{"dtype":"F32","shape":[],"x":{}"#, "[".repeat(100_000));
    let axes = "1,".repeat(100_000);
    let empties: Vec<String> =
        (0..40_000).map(|i| entry(&format!("{i}"), "F32", "0", "0,0")).collect();
    // Every tensor says another width, and none has a byte.
    let votes: Vec<String> = (1..40_000)
        .map(|i| {
            entry(&format!("blocks.{i}.mlp_tokens.fc1.weight"), "F32", &format!("{i},0"), "0,0")
        })
        .collect();
    let long_name = "x".repeat(1 << 20);
    let rows = vec![
        ("a header of 2^63 bytes", with_length(1 << 63, "{}", 0), "header of 9223372036854775808"),
        (
            "a header of 2^64 - 1 bytes",
            with_length(u64::MAX, "{}", 0),
            "header of 18446744073709551615",
        ),
        (
            "a header of 17 MB",
            safetensors(&format!("{{{}}}", " ".repeat(17 << 20)), 0),
            "header of",
        ),
        ("a header longer than the file", with_length(9_000, "{}", 0), "truncated: header of 9000"),
        ("a header that ends within itself", with_length(1, "{}", 0), "bad header"),
        ("100 000 brackets", nested("["), "bad header"),
        ("100 000 braces", nested(r#"{"a":"#), "bad header"),
        ("100 000 brackets in an unknown key", safetensors(&nested_info, 0), "bad header"),
        (
            "tensors over one another",
            two("0,4", "2,6", 6),
            "tensor `b` lies at 2 to 6, expected from 4",
        ),
        ("tensors in one place", two("0,4", "0,4", 4), "tensor `b` lies at 0 to 4"),
        ("a gap", two("0,4", "8,12", 12), "tensor `b` lies at 8 to 12"),
        ("a gap before the first", one("F32", "1", "4,8", 8), "lies at 4 to 8, expected from 0"),
        ("an end before its beginning", one("F32", "1", "4,0", 4), "bad header"),
        ("a tensor beyond the file", one("F32", "2", "0,8", 4), "truncated: 4 bytes of data"),
        (
            "a tensor at 2^63",
            one("F32", "1", "9223372036854775808,9223372036854775812", 4),
            "bad header",
        ),
        (
            "an end of 2^64 - 1",
            one("U8", "18446744073709551615", "0,18446744073709551615", 4),
            "bad header",
        ),
        ("a negative offset", one("F32", "1", "-4,0", 4), "bad header"),
        ("a fractional offset", one("F32", "1", "0,4.0", 4), "bad header"),
        ("a negative size", one("F32", "-1", "0,4", 4), "bad header"),
        ("2^64 values", one("F32", "18446744073709551616", "0,4", 4), "bad header"),
        ("a product that overflows", one("F32", "4294967296,4294967296", "0,4", 4), "overflows"),
        (
            "a product that overflows, times 0",
            one("F32", "4294967296,4294967296,0", "0,0", 0),
            "overflows",
        ),
        ("half the bytes of its type", one("F64", "1", "0,4", 4), "has 4 bytes"),
        ("an unknown type", one("F1024", "1", "0,4", 4), "unknown variant"),
        (
            "an unknown key",
            safetensors(r#"{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4],"x":1}}"#, 4),
            "unknown field",
        ),
        (
            "a name twice",
            safetensors(
                &header(&[entry("a", "F32", "1", "0,4"), entry("a", "F32", "1", "4,8")]),
                8,
            ),
            "two tensors `a`",
        ),
        (
            "an empty name twice",
            safetensors(&header(&[entry("", "F32", "0", "0,0"), entry("", "F32", "0", "0,0")]), 0),
            "two tensors",
        ),
        (
            "metadata twice",
            safetensors(r#"{"__metadata__":{},"__metadata__":{}}"#, 0),
            "there twice",
        ),
        ("metadata of numbers", safetensors(r#"{"__metadata__":{"a":1}}"#, 0), "bad header"),
        ("bytes that belong to no tensor", one("F32", "1", "0,4", 5), "1 bytes follow"),
        ("100 000 axes", one("F32", &format!("{axes}1"), "0,4", 4), "at most 8 sizes"),
        ("no tensors", safetensors("{}", 0), "holds no tensors"),
        ("40 000 tensors of no bytes", safetensors(&header(&empties), 0), "not the weights"),
        ("40 000 widths", safetensors(&header(&votes), 0), "not the weights"),
        (
            "a name of 1 MB",
            safetensors(&header(&[entry(&long_name, "F32", "0", "0,0")]), 0),
            "not the weights",
        ),
        (
            "no UTF-8",
            {
                let mut bytes = one("F32", "1", "0,4", 4);
                bytes[10] = 0xff;
                bytes
            },
            "bad header",
        ),
    ];
    all_are_refused("safetensors", rows);
}

#[test]
fn metadata_that_claims_an_absurd_network_is_refused() {
    let claimed = |key: &str, value: &str| {
        let mut dimensions = vec![
            ("image_size", "4"),
            ("patch_size", "2"),
            ("hidden_dim", "2"),
            ("tokens_mlp_dim", "3"),
            ("channels_mlp_dim", "5"),
            ("num_blocks", "1"),
            ("num_classes", "2"),
        ];
        for dimension in &mut dimensions {
            if dimension.0 == key {
                dimension.1 = value;
            }
        }
        let dimensions: Vec<String> =
            dimensions.iter().map(|(key, value)| format!(r#"\"{key}\":{value}"#)).collect();
        let config = format!(r#"{{{},\"gelu\":\"erf\"}}"#, dimensions.join(","));
        let ours = format!(r#"{{\"format_version\":1,\"config\":{config}}}"#);
        let metadata = format!(r#""__metadata__":{{"mixer":"{ours}"}}"#);
        safetensors(&header(&[metadata, entry("head.bias", "F32", "2", "0,8")]), 8)
    };
    let json = |ours: &str| {
        let ours = serde_json::to_string(ours).unwrap();
        safetensors(&format!(r#"{{"__metadata__":{{"mixer":{ours}}}}}"#), 0)
    };
    let rows = vec![
        ("an image of 2^40 px", claimed("image_size", "1099511627776"), "`image_size` is"),
        (
            "an image of 2^64 px",
            claimed("image_size", "18446744073709551616"),
            "bad `mixer` metadata",
        ),
        ("2^50 channels", claimed("hidden_dim", "1125899906842624"), "`hidden_dim` is"),
        ("2^60 wide", claimed("channels_mlp_dim", "1152921504606846976"), "`channels_mlp_dim` is"),
        ("2^60 classes", claimed("num_classes", "1152921504606846976"), "`num_classes` is"),
        ("2^40 blocks", claimed("num_blocks", "1099511627776"), "`num_blocks` is"),
        ("more blocks than tensors", claimed("num_blocks", "7"), "`num_blocks` is 7"),
        ("patches of 0 px", claimed("patch_size", "0"), "`patch_size` is 0"),
        ("a negative size", claimed("hidden_dim", "-1"), "bad `mixer` metadata"),
        (
            "100 000 brackets",
            json(&format!(r#"{{"format_version":1,"x":{}"#, "[".repeat(100_000))),
            "bad `mixer`",
        ),
        (
            "a version of the future",
            json(r#"{"format_version":4294967295}"#),
            "format version 4294967295",
        ),
        ("no version", json("{}"), "bad `mixer` metadata"),
    ];
    all_are_refused("safetensors", rows);
}

// Other formats.

#[test]
fn records_of_burn_are_named_with_the_way_to_convert_them() {
    for magic in [b"NRUB", b"BURN"] {
        let bytes = [&magic[..], &[1, 0, 200, 0, 0, 0], &[0xa0; 300]].concat();
        match Weights::from_bytes(&bytes, Path::new("model.bpk"), None).unwrap_err() {
            ModelError::Unreadable { reason, hint, .. } => {
                assert_eq!(reason, "a record of Burn (`.bpk`), which is not supported");
                assert!(hint.unwrap().contains("SafetensorsStore"), "{hint:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[cfg(unix)]
#[test]
fn devices_are_no_weights_files() {
    for path in ["/dev/zero", "/dev/null"] {
        let peak = allocation::peak_of(|| assert!(Weights::read(Path::new(path), None).is_err()));
        assert!(peak < 1 << 20, "{path}: {peak}");
    }
}
