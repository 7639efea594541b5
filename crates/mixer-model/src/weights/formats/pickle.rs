//! Reader of the pickles in PyTorch checkpoints: which tensors there are, and where they lie.
//!
//! A pickle is a program for a machine with a stack, and some of its instructions call whatever Python
//! function they name. Nothing is called here. The few functions that PyTorch rebuilds tensors with are
//! known by name and mean a tensor; some other names, which come with ordinary training checkpoints,
//! mean an object of which nothing is kept. Any other name means an object that nothing is known of: it
//! is passed over beside the weights, and named where it stands in the place of a tensor or where the
//! file has no weights, because elsewhere such a file may run code.
//!
//! Objects lie in one list and refer to each other by index, as Python's do. So a pickle that refers to
//! an object a million times costs a million indices and no copies, and no depth of nesting is
//! recursion.
//!
//! # Source
//! `Lib/pickletools.py` of CPython (instructions), `torch/serialization.py` and `torch/_utils.py`
//! (storages, tensors).

use std::collections::HashMap;
use std::fmt;

use super::refusal::Refusal;
use crate::weights::tensor_info::MAX_RANK;

/// Most objects that a pickle may make, refer to or number. A Mixer of 32 blocks has some 15 000, and four
/// times as many with the state of its optimizer and averaged weights.
const MAX_OBJECTS: usize = 1 << 18;

/// Deepest nesting of dictionaries in which tensors are looked for.
const MAX_DEPTH: usize = 16;

/// Longest name of a tensor, its dictionaries included.
const MAX_NAME_BYTES: usize = 512;

/// Under how many names an object is looked at. An object in several dictionaries takes no more bytes of the
/// file, but each time again memory and time of the reader.
const MAX_NAMES: u8 = 4;

/// The number that legacy files begin with: 0x1950a86a20f9469cfc6c.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

const ONLY_TENSORS: &str = "if you trust the file, load it in PyTorch and save only the tensors: \
                            `torch.save(model.state_dict(), FILE)`";

const CONTIGUOUS: &str =
    "save copies instead of views: `{k: v.contiguous().clone() for k, v in state_dict.items()}`";

/// Element type of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StorageType {
    F16,
    BF16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    Bool,
}

impl StorageType {
    /// By the name of PyTorch's class.
    fn parse(class: &str) -> Option<Self> {
        Some(match class {
            "torch.HalfStorage" => Self::F16,
            "torch.BFloat16Storage" => Self::BF16,
            "torch.FloatStorage" => Self::F32,
            "torch.DoubleStorage" => Self::F64,
            "torch.CharStorage" => Self::I8,
            "torch.ShortStorage" => Self::I16,
            "torch.IntStorage" => Self::I32,
            "torch.LongStorage" => Self::I64,
            "torch.ByteStorage" => Self::U8,
            "torch.BoolStorage" => Self::Bool,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::U8 => "u8",
            Self::Bool => "bool",
        }
    }

    /// Bytes of one element.
    pub(super) fn size(self) -> u64 {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }
}

/// A run of elements, one after the other, outside of the pickle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storage {
    pub(super) key: String,
    pub(super) element: StorageType,
    /// Number of elements.
    pub(super) len: u64,
}

/// A view of a storage, which it does not leave and in which no element is there twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    /// Index of the storage.
    pub(super) storage: usize,
    /// Of the first element, in elements.
    pub(super) offset: u64,
    pub(super) shape: Vec<usize>,
    /// By axis, in elements.
    pub(super) strides: Vec<usize>,
}

/// The content of a pickle, as far as it is looked at.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    nodes: Vec<Node<'a>>,
    pub(super) storages: Vec<Storage>,
    views: Vec<View>,
    root: Id,
    /// The first object that nothing is known of, and where it is made.
    unknown: Option<(usize, Global<'a>)>,
    /// Bytes that it took.
    pub(super) bytes: usize,
}

/// The tensors of a pickle, with dotted names, sorted by them.
pub(super) struct Found<'a> {
    pub(super) tensors: Vec<(String, &'a View)>,
    /// The reason why something beside them was passed over. It is the answer where the tensors are
    /// not those of a network.
    pub(super) fault: Option<Refusal>,
}

/// Index of an object.
type Id = u32;

#[derive(Debug)]
enum Node<'a> {
    /// An object of which nothing is kept.
    Other,
    Bool(bool),
    Int(i64),
    Text(&'a str),
    /// An integer of more than 64 bits, little-endian.
    Long(&'a [u8]),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    /// Keys and values in turns.
    Dict(Vec<Id>),
    Global(Global<'a>),
    /// An object that is made by a name of which nothing is known.
    Unknown(Global<'a>),
    Storage(u32),
    View(u32),
}

/// The meaning of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Global<'a> {
    /// A dictionary when called.
    Dict,
    /// A list when called.
    List,
    /// An object of which nothing is kept.
    Ignored,
    Storage(StorageType),
    RebuildTensor,
    RebuildParameter,
    /// A tensor, from the function and the arguments that it is made with.
    RebuildFromType,
    /// A class or function that nothing is known of, and what is made of it.
    Unknown(&'a str, &'a str),
}

impl<'a> Global<'a> {
    fn parse(module: &'a str, name: &'a str) -> Self {
        match (module, name) {
            ("collections", "OrderedDict" | "defaultdict" | "Counter") => Global::Dict,
            ("collections", "deque") | ("builtins" | "__builtin__", "set" | "frozenset") => {
                Global::List
            }
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                Global::RebuildParameter
            }
            ("torch._tensor", "_rebuild_from_type" | "_rebuild_from_type_v2") => {
                Global::RebuildFromType
            }
            ("argparse", "Namespace")
            | ("_codecs", "encode")
            | ("numpy", "dtype" | "ndarray")
            | ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar" | "_reconstruct")
            | ("torch", "device" | "Size")
            | ("torch.torch_version", "TorchVersion")
            | ("datetime", "date" | "datetime" | "timedelta")
            | ("builtins" | "__builtin__", "dict" | "list" | "int" | "float" | "complex")
            | ("pathlib", "Path" | "PosixPath" | "PurePosixPath" | "WindowsPath") => {
                Global::Ignored
            }
            ("torch", dtype) if DTYPES.contains(&dtype) => Global::Ignored,
            ("torch", _) => match StorageType::parse(&format!("torch.{name}")) {
                Some(element) => Global::Storage(element),
                None => Global::Unknown(module, name),
            },
            _ => Global::Unknown(module, name),
        }
    }
}

/// Types that come as values, in the settings of a checkpoint.
const DTYPES: [&str; 8] =
    ["float16", "bfloat16", "float32", "float64", "int32", "int64", "uint8", "bool"];

impl fmt::Display for Global<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Global::Unknown(module, name) => write!(f, "{module}.{name}"),
            _ => f.write_str("a known name"),
        }
    }
}

/// Indices of objects that many others share.
const NOTHING: Id = 0;
const EMPTY_TUPLE: Id = 1;
const FALSE: Id = 2;
const TRUE: Id = 3;

impl<'a> Pickle<'a> {
    /// Reads the pickle that `bytes` begin with.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let mut machine = Machine::new(bytes);
        loop {
            let at = machine.at;
            match machine.step() {
                Ok(None) => {}
                Ok(Some(root)) => {
                    let Machine { nodes, storages, views, unknown, at, .. } = machine;
                    return Ok(Pickle { nodes, storages, views, root, unknown, bytes: at });
                }
                Err(Refusal { reason, hint }) => {
                    let reason = format!("pickle, byte {at}: {reason}");
                    return Err(Refusal { reason, hint });
                }
            }
        }
    }

    fn node(&self, id: Id) -> &Node<'a> {
        &self.nodes[id as usize]
    }

    /// True for the number that legacy files begin with.
    pub(super) fn is_legacy_magic(&self) -> bool {
        matches!(self.node(self.root), Node::Long(bytes) if *bytes == LEGACY_MAGIC)
    }

    /// The integer that it is.
    pub(super) fn as_int(&self) -> Option<i64> {
        match self.node(self.root) {
            Node::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The truth value of a key, where it is a dictionary.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        let Node::Dict(items) = self.node(self.root) else { return None };
        items.as_chunks::<2>().0.iter().find_map(|[name, value]| {
            match (self.node(*name), self.node(*value)) {
                (Node::Text(name), Node::Bool(value)) if *name == key => Some(*value),
                _ => None,
            }
        })
    }

    /// The texts of a list, where it is one of texts or integers.
    pub(super) fn texts(&self) -> Option<Vec<String>> {
        let Node::List(items) = self.node(self.root) else { return None };
        items.iter().map(|item| text_of(self.node(*item))).collect()
    }

    /// The refusal for an object of which nothing is known.
    pub(super) fn unknown(&self) -> Option<Refusal> {
        let (at, global) = self.unknown?;
        let Refusal { reason, hint } = refusal_of(global);
        Some(Refusal { reason: format!("pickle, byte {at}: {reason}"), hint })
    }

    /// The tensors in its dictionaries.
    pub(super) fn tensors(&self) -> Result<Found<'_>, Refusal> {
        let Node::Dict(_) = self.node(self.root) else {
            return Err(self.unknown().unwrap_or_else(|| {
                Refusal::with_hint(
                    "the checkpoint is no dictionary, expected tensors by name",
                    ONLY_TENSORS,
                )
            }));
        };
        let mut tensors = Vec::new();
        let mut fault = self.unknown();
        // What is still to be looked at: an object, and how deep and under which name it lies.
        let mut open = vec![(self.root, 0, String::new())];
        let mut times_seen = vec![0; self.nodes.len()];
        let mut name_bytes = 0;
        while let Some((id, depth, name)) = open.pop() {
            let times_seen: &mut u8 = &mut times_seen[id as usize];
            *times_seen = times_seen.saturating_add(1);
            // No tensor of a network has so many names; the count of updates in a state of an optimizer may.
            if *times_seen > MAX_NAMES {
                fault.get_or_insert_with(|| {
                    Refusal::new(format!(
                        "an object under more than {MAX_NAMES} names, `{name}` among them"
                    ))
                });
                continue;
            }
            match self.node(id) {
                Node::View(view) => tensors.push((name, &self.views[*view as usize])),
                Node::Dict(_) if depth == MAX_DEPTH => {
                    fault.get_or_insert_with(|| {
                        Refusal::new(format!("dictionaries nest deeper than {MAX_DEPTH}"))
                    });
                }
                Node::Dict(items) => {
                    for [key, value] in items.as_chunks::<2>().0 {
                        let is_of_interest =
                            matches!(self.node(*value), Node::View(_) | Node::Dict(_));
                        let Some(key) = text_of(self.node(*key)).filter(|_| is_of_interest) else {
                            continue;
                        };
                        let name = if name.is_empty() { key } else { format!("{name}.{key}") };
                        name_bytes += name.len();
                        if name.len() > MAX_NAME_BYTES || name_bytes > 4 * self.bytes + 4096 {
                            return Err(Refusal::new(format!(
                                "a name of {} bytes, expected at most {MAX_NAME_BYTES}",
                                name.len()
                            )));
                        }
                        open.push((*value, depth + 1, name));
                    }
                }
                _ => {}
            }
        }
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        if let Some([(name, _), _]) = tensors.array_windows::<2>().find(|[a, b]| a.0 == b.0) {
            return Err(Refusal::new(format!("two tensors `{name}`")));
        }
        Ok(Found { tensors, fault })
    }
}

/// The refusal for what is made by a name of which nothing is known.
fn refusal_of(global: Global) -> Refusal {
    let reason = match global {
        Global::Unknown(_, name) if name.ends_with("Storage") => {
            format!("a storage of `{global}`, expected a known element type")
        }
        _ => format!("calls `{global}`, expected nothing but tensors"),
    };
    Refusal::with_hint(reason, ONLY_TENSORS)
}

/// Keys are texts, or integers in the state of an optimizer.
fn text_of(node: &Node) -> Option<String> {
    match node {
        Node::Text(text) => Some((*text).to_owned()),
        Node::Int(value) => Some(value.to_string()),
        _ => None,
    }
}

/// The machine that a pickle is a program for.
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    storages: Vec<Storage>,
    storage_of_key: HashMap<String, u32>,
    views: Vec<View>,
    /// The first object that nothing is known of, and where it is made.
    unknown: Option<(usize, Global<'a>)>,
    /// Number of times that something was put on the stack, into the memo or among the marks.
    pushed: usize,
}

type Step<T> = Result<T, Refusal>;

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let shared =
            vec![Node::Other, Node::Tuple(Vec::new()), Node::Bool(false), Node::Bool(true)];
        Machine {
            bytes,
            at: 0,
            nodes: shared,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            storages: Vec::new(),
            storage_of_key: HashMap::new(),
            views: Vec::new(),
            unknown: None,
            pushed: 0,
        }
    }

    /// Executes one instruction; gives the object at the end.
    fn step(&mut self) -> Step<Option<Id>> {
        let code = self.take(1)?[0];
        match code {
            // Protocol and frame: nothing to know.
            0x80 => {
                let version = self.take(1)?[0];
                if version > 5 {
                    return Err(Refusal::new(format!("protocol {version}, expected 2 to 5")));
                }
            }
            0x95 => drop(self.take(8)?),
            b'.' => {
                let root = self.pop()?;
                if !self.stack.is_empty() || !self.marks.is_empty() {
                    return Err(Refusal::new("ends with more than one object"));
                }
                return Ok(Some(root));
            }

            b'N' => self.push(NOTHING)?,
            0x88 => self.push(TRUE)?,
            0x89 => self.push(FALSE)?,
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.make(Node::Int(value.into()))?;
            }
            b'K' => {
                let value = self.take(1)?[0];
                self.make(Node::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.make(Node::Int(value.into()))?;
            }
            0x8a => {
                let length = self.take(1)?[0];
                self.long(length.into())?;
            }
            0x8b => {
                let length = u32::from_le_bytes(self.array()?);
                self.long(length.into())?;
            }
            b'G' => {
                self.take(8)?;
                self.push(NOTHING)?;
            }

            // Texts; those of Python 2 among them.
            0x8c | b'U' => {
                let length = self.take(1)?[0];
                self.text(length.into())?;
            }
            b'X' | b'T' => {
                let length = u32::from_le_bytes(self.array()?);
                self.text(length.into())?;
            }
            0x8d => {
                let length = u64::from_le_bytes(self.array()?);
                self.text(length)?;
            }
            // Bytes.
            b'C' => {
                let length = self.take(1)?[0];
                self.skip(length.into())?;
            }
            b'B' => {
                let length = u32::from_le_bytes(self.array()?);
                self.skip(length.into())?;
            }
            0x8e | 0x96 => {
                let length = u64::from_le_bytes(self.array()?);
                self.skip(length)?;
            }

            // Containers. A set is a list here.
            b'(' => {
                self.spend()?;
                self.marks.push(self.stack.len());
            }
            b')' => self.push(EMPTY_TUPLE)?,
            b']' | 0x8f => self.make(Node::List(Vec::new()))?,
            b'}' => self.make(Node::Dict(Vec::new()))?,
            b't' => {
                let items = self.pop_to_mark()?;
                self.make(Node::Tuple(items))?;
            }
            0x85..=0x87 => {
                let count = usize::from(code - 0x84);
                let floor = self.marks.last().copied().unwrap_or(0);
                let first = self.stack.len().checked_sub(count).filter(|first| *first >= floor);
                let items = self.stack.split_off(first.ok_or_else(underflow)?);
                self.make(Node::Tuple(items))?;
            }
            b'l' | 0x91 => {
                let items = self.pop_to_mark()?;
                self.make(Node::List(items))?;
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                check_pairs(&items)?;
                self.make(Node::Dict(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(vec![key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(items)?;
            }

            // Stack and memo.
            b'0' => {
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            b'1' => drop(self.pop_to_mark()?),
            b'2' => {
                let top = self.top()?;
                self.push(top)?;
            }
            b'h' => {
                let index = self.take(1)?[0];
                self.recall(index.into())?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.array()?);
                self.recall(index)?;
            }
            b'q' => {
                let index = self.take(1)?[0];
                self.memorise(index.into())?;
            }
            b'r' => {
                let index = u32::from_le_bytes(self.array()?);
                self.memorise(index)?;
            }
            0x94 => self.memorise(self.memo.len() as u32)?,

            // Names, and what is made by them.
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.make(Node::Global(Global::parse(module, name)))?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Node::Text(module), Node::Text(name)) = (self.node(module), self.node(name))
                else {
                    return Err(Refusal::new("a name that is no text"));
                };
                let global = Global::parse(module, name);
                self.make(Node::Global(global))?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.make(storage)?;
            }
            b'R' | 0x81 => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.call(function, arguments)?;
            }
            0x92 => {
                let (_, arguments, function) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(function, arguments)?;
            }
            // The attributes of an object. Of a dictionary they are the versions of its modules, and of
            // nothing else is anything kept.
            b'b' => {
                self.pop()?;
                self.top()?;
            }
            _ => {
                return Err(Refusal::with_hint(
                    format!("instruction {code:#04x}, which checkpoints have no use for"),
                    ONLY_TENSORS,
                ));
            }
        }
        Ok(None)
    }

    fn node(&self, id: Id) -> &Node<'a> {
        &self.nodes[id as usize]
    }

    fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = rest
            .get(..count)
            .ok_or_else(|| Refusal::new(format!("truncated: {count} bytes of {}", rest.len())))?;
        self.at += count;
        Ok(taken)
    }

    fn take_long(&mut self, count: u64) -> Step<&'a [u8]> {
        self.take(usize::try_from(count).unwrap_or(usize::MAX))
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| Refusal::new("truncated"))
    }

    /// A text up to the end of the line.
    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().take(MAX_NAME_BYTES).position(|byte| *byte == b'\n');
        let line = self.take(length.ok_or_else(|| Refusal::new("a name without end"))?)?;
        self.at += 1;
        std::str::from_utf8(line).map_err(|_| Refusal::new("a name that is no UTF-8"))
    }

    /// Counts what takes memory. Every instruction costs a byte of the file, but that is less than what it
    /// makes.
    fn spend(&mut self) -> Step<()> {
        self.pushed += 1;
        if self.pushed > MAX_OBJECTS {
            let reason = format!("more than {MAX_OBJECTS} objects");
            return Err(Refusal::with_hint(reason, ONLY_TENSORS));
        }
        Ok(())
    }

    fn push(&mut self, id: Id) -> Step<()> {
        self.spend()?;
        self.stack.push(id);
        Ok(())
    }

    fn make(&mut self, node: Node<'a>) -> Step<()> {
        let id = self.nodes.len() as Id;
        self.push(id)?;
        self.nodes.push(node);
        Ok(())
    }

    fn long(&mut self, length: u64) -> Step<()> {
        let bytes = self.take_long(length)?;
        if bytes.len() > 8 {
            return self.make(Node::Long(bytes));
        }
        let is_negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut value = [if is_negative { 0xff } else { 0 }; 8];
        value[..bytes.len()].copy_from_slice(bytes);
        self.make(Node::Int(i64::from_le_bytes(value)))
    }

    fn text(&mut self, length: u64) -> Step<()> {
        let bytes = self.take_long(length)?;
        // A text of Python 2 may be anything; it names nothing then.
        self.make(std::str::from_utf8(bytes).map_or(Node::Other, Node::Text))
    }

    fn skip(&mut self, length: u64) -> Step<()> {
        self.take_long(length)?;
        self.push(NOTHING)
    }

    fn top(&self) -> Step<Id> {
        if self.marks.last() == Some(&self.stack.len()) {
            return Err(underflow());
        }
        self.stack.last().copied().ok_or_else(underflow)
    }

    fn pop(&mut self) -> Step<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_to_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(underflow)?;
        Ok(self.stack.split_off(mark))
    }

    fn append(&mut self, items: Vec<Id>) -> Step<()> {
        let list = self.top()?;
        match &mut self.nodes[list as usize] {
            Node::List(list) => list.extend(items),
            Node::Other | Node::Unknown(_) => {}
            _ => return Err(Refusal::new("items for what is no list")),
        }
        Ok(())
    }

    fn set_items(&mut self, items: Vec<Id>) -> Step<()> {
        check_pairs(&items)?;
        let dict = self.top()?;
        match &mut self.nodes[dict as usize] {
            Node::Dict(dict) => dict.extend(items),
            Node::Other | Node::Unknown(_) => {}
            _ => return Err(Refusal::new("items for what is no dictionary")),
        }
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Step<()> {
        match self.memo.get(&index) {
            Some(id) => self.push(*id),
            None => Err(Refusal::new(format!("refers to object {index}, which is not there"))),
        }
    }

    fn memorise(&mut self, index: u32) -> Step<()> {
        let top = self.top()?;
        self.spend()?;
        self.memo.insert(index, top);
        Ok(())
    }

    /// The object that Python would call a function for.
    fn call(&mut self, function: Id, arguments: Id) -> Step<()> {
        let (Node::Global(function) | Node::Unknown(function)) = *self.node(function) else {
            return Err(Refusal::new("calls what is no function"));
        };
        let (first, third) = match self.node(arguments) {
            Node::Tuple(items) => (items.first().copied(), items.get(2).copied()),
            _ => (None, None),
        };
        match function {
            Global::Dict => self.make(Node::Dict(Vec::new())),
            Global::List => self.make(Node::List(Vec::new())),
            Global::Ignored => self.make(Node::Other),
            Global::RebuildTensor => {
                // Of a storage of which nothing is known.
                if let Some(storage) = first
                    && let Node::Unknown(global) = *self.node(storage)
                {
                    return self.make_unknown(global);
                }
                let view = self.view(arguments)?;
                let index = self.views.len() as u32;
                self.views.push(view);
                self.make(Node::View(index))
            }
            Global::RebuildParameter => match first {
                Some(tensor) if matches!(self.node(tensor), Node::View(_) | Node::Unknown(_)) => {
                    self.push(tensor)
                }
                _ => Err(Refusal::new("a parameter without a tensor")),
            },
            Global::RebuildFromType => match (first, third) {
                (Some(function), Some(arguments))
                    if matches!(
                        self.node(function),
                        Node::Global(
                            Global::RebuildTensor | Global::RebuildParameter | Global::Unknown(..)
                        )
                    ) =>
                {
                    self.call(function, arguments)
                }
                _ => Err(Refusal::new("a tensor of a class without its function")),
            },
            Global::Storage(_) => Err(Refusal::new("calls a storage")),
            Global::Unknown(..) => self.make_unknown(function),
        }
    }

    /// An object that stands for what Python would have made.
    fn make_unknown(&mut self, global: Global<'a>) -> Step<()> {
        self.unknown.get_or_insert((self.at, global));
        self.make(Node::Unknown(global))
    }

    /// Reads `('storage', type, key, device, number of elements)`.
    fn storage(&mut self, id: Id) -> Step<Node<'a>> {
        let bad = |what: &str| Refusal::new(format!("a storage {what}"));
        let items = match self.node(id) {
            Node::Tuple(items) => items,
            Node::Unknown(global) => return Err(refusal_of(*global)),
            _ => return Err(bad("that is no tuple")),
        };
        let (tag, class, key, len, view) = match items.as_slice() {
            [tag, class, key, _, len] => (*tag, *class, *key, *len, NOTHING),
            [tag, class, key, _, len, view] => (*tag, *class, *key, *len, *view),
            _ => return Err(bad(&format!("of {} parts, expected 5", items.len()))),
        };
        if !matches!(self.node(tag), Node::Text("storage")) {
            return Err(bad("that does not say so"));
        }
        let element = match self.node(class) {
            Node::Global(Global::Storage(element)) => *element,
            Node::Global(global @ Global::Unknown(..)) => {
                let global = *global;
                self.unknown.get_or_insert((self.at, global));
                return Ok(Node::Unknown(global));
            }
            _ => return Err(bad("without element type")),
        };
        if view != NOTHING {
            return Err(Refusal::with_hint("a part of a storage", CONTIGUOUS));
        }
        let key = text_of(self.node(key))
            .filter(|key| key.len() <= MAX_NAME_BYTES)
            .ok_or_else(|| bad("without name"))?;
        let len = self.size(len).ok_or_else(|| bad("without size"))? as u64;
        if len.checked_mul(element.size()).is_none() {
            return Err(bad(&format!("of {len} elements")));
        }
        let storage = Storage { key, element, len };
        if let Some(index) = self.storage_of_key.get(&storage.key) {
            let before = &self.storages[*index as usize];
            if *before != storage {
                return Err(bad(&format!("`{}` in two forms", storage.key)));
            }
            return Ok(Node::Storage(*index));
        }
        let index = self.storages.len() as u32;
        self.storage_of_key.insert(storage.key.clone(), index);
        self.storages.push(storage);
        Ok(Node::Storage(index))
    }

    /// Reads `(storage, offset, shape, strides, ...)`.
    fn view(&self, arguments: Id) -> Step<View> {
        let bad = |what: String| Refusal::new(format!("a tensor {what}"));
        let Node::Tuple(items) = self.node(arguments) else {
            return Err(bad("without arguments".to_owned()));
        };
        let [storage, offset, shape, strides, ..] = *items.as_slice() else {
            return Err(bad(format!("of {} arguments, expected 4", items.len())));
        };
        let Node::Storage(index) = *self.node(storage) else {
            return Err(bad("without storage".to_owned()));
        };
        let storage = &self.storages[index as usize];
        let offset = self.size(offset).ok_or_else(|| bad("without offset".to_owned()))?;
        let shape = self.sizes(shape).ok_or_else(|| bad("without shape".to_owned()))?;
        let strides = self.sizes(strides).ok_or_else(|| bad("without strides".to_owned()))?;
        if shape.len() != strides.len() {
            return Err(bad(format!("of shape {shape:?} with strides {strides:?}")));
        }
        let view = View { storage: index as usize, offset: offset as u64, shape, strides };
        let end = view.extent().and_then(|extent| extent.checked_add(view.offset));
        let end = end.ok_or_else(|| {
            let reason = format!(
                "a tensor of shape {:?} with strides {:?}, expected every element once",
                view.shape, view.strides
            );
            Refusal::with_hint(reason, CONTIGUOUS)
        })?;
        if end > storage.len {
            return Err(bad(format!(
                "of shape {:?} with strides {:?} ends at element {end} of {} in storage `{}`",
                view.shape, view.strides, storage.len, storage.key
            )));
        }
        Ok(view)
    }

    fn size(&self, id: Id) -> Option<usize> {
        match self.node(id) {
            Node::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        match self.node(id) {
            Node::Tuple(items) if items.len() <= MAX_RANK => {
                items.iter().map(|item| self.size(*item)).collect()
            }
            _ => None,
        }
    }
}

impl View {
    /// Number of elements; no more than the storage has.
    pub(super) fn len(&self) -> u64 {
        self.shape.iter().map(|size| *size as u64).product()
    }

    /// Elements of the storage from its first one to its last; `None` when elements are there twice, or when
    /// numbers overflow.
    pub(super) fn extent(&self) -> Option<u64> {
        let len = self.shape.iter().try_fold(1_u64, |len, size| len.checked_mul(*size as u64));
        if len? == 0 {
            return Some(0);
        }
        let mut axes: Vec<(u64, u64)> = self
            .shape
            .iter()
            .zip(&self.strides)
            .filter(|(size, _)| **size > 1)
            .map(|(size, stride)| (*stride as u64, *size as u64))
            .collect();
        axes.sort_unstable();
        // Every axis steps over all that the ones with smaller steps reach.
        let mut last = 0_u64;
        for (stride, size) in axes {
            if stride <= last {
                return None;
            }
            last = last.checked_add(stride.checked_mul(size - 1)?)?;
        }
        last.checked_add(1)
    }

    /// True where its elements lie one after the other, in C order.
    pub(super) fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&size, &stride)| {
            let is_next = size == 1 || stride == expected;
            expected = expected.saturating_mul(size);
            is_next
        })
    }
}

fn underflow() -> Refusal {
    Refusal::new("takes more objects than there are")
}

fn check_pairs(items: &[Id]) -> Step<()> {
    if !items.len().is_multiple_of(2) {
        return Err(Refusal::new("a key without a value"));
    }
    Ok(())
}
