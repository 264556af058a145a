//! A reader of the pickles of `torch.save` (protocol 2) that makes tensors, dictionaries, lists, tuples, texts, numbers,
//! booleans and None, and refuses everything else: no object is ever built by a name that the file gives.
//!
//! Our own, because what exists reads no persistent ids (serde-pickle), is not kept up (repugnant-pickle) or brings a
//! tensor library (candle, burn).
//!
//! Every operation makes at most one value, so memory is bounded by the length: 16 bytes a value, and [`OBJECTS`] lists
//! and dictionaries. A list may hold itself; nothing here goes down into values by recursion.

use super::Tensor;
use crate::numbers::{Element, Kind};
use moesim_core::{Diag, Result};
use std::ops::Range;

/// Lists, dictionaries and tensors; a recording has about ten for each forward pass.
const OBJECTS: usize = 4 << 20;
/// Keys of a dictionary, which is searched from its end. Recordings have about ten.
const KEYS: usize = 64;

/// A value; what has parts is an index into [`Objects`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Bytes of the pickle: start and length.
    Text(u32, u32),
    /// A list or a tuple.
    List(u32),
    Dict(u32),
    Tensor(u32),
    /// A storage: see [`Objects`].
    Storage(u32),
    /// A name in a module.
    Global(Global),
}

/// The names that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Global {
    RebuildTensor,
    OrderedDict,
    Size,
    /// A type of storage: kind and bytes of its elements.
    Storage(Kind, u8),
}

impl Value {
    /// The bytes of a text.
    pub(super) fn text<'a>(&self, pickle: &'a [u8]) -> Option<&'a [u8]> {
        match *self {
            Value::Text(start, length) => pickle.get(start as usize..)?.get(..length as usize),
            _ => None,
        }
    }
    /// A whole number.
    pub(crate) fn int(self) -> Option<i64> {
        match self {
            Value::Int(i) => Some(i),
            _ => None,
        }
    }
    fn size(self) -> Option<usize> {
        usize::try_from(self.int()?).ok()
    }
}

/// What the values refer to.
#[derive(Default)]
pub(super) struct Objects {
    pub(super) lists: Vec<Vec<Value>>,
    pub(super) dicts: Vec<Vec<(Value, Value)>>,
    pub(super) tensors: Vec<Tensor>,
    storages: Vec<(Element, Range<usize>)>,
}

/// Finds the bytes of a storage by its key, element type and number of elements.
type FindStorage<'a> = dyn Fn(&[u8], Element, usize) -> Result<Range<usize>> + 'a;

/// Reads a pickle.
pub(super) fn read(pickle: &[u8], storage: &FindStorage) -> Result<(Objects, Value)> {
    let mut m =
        Machine { pickle, at: 0, stack: vec![], marks: vec![], memo: vec![], objects: Objects::default(), storage };
    let root = m.run().map_err(|d| {
        let cure = if d.cure.is_empty() { "give a file of tensors, lists, dictionaries and numbers" } else { &d.cure };
        let cure = cure.to_string();
        d.place(format!("data.pkl, byte {}", m.at)).cure(cure)
    })?;
    Ok((m.objects, root))
}

struct Machine<'a> {
    pickle: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: Vec<Value>,
    objects: Objects,
    storage: &'a FindStorage<'a>,
}

fn wrong(problem: impl Into<String>) -> Diag {
    Diag::input(problem)
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Value> {
        loop {
            let op = self.take(1)?[0];
            match op {
                // PROTO, FRAME: what they say is not needed.
                0x80 => _ = self.take(1)?,
                0x95 => _ = self.take(8)?,
                b'.' => {
                    return self.pop();
                }
                b'(' => self.marks.push(self.stack.len()),
                b'N' => self.stack.push(Value::None),
                0x88 => self.stack.push(Value::Bool(true)),
                0x89 => self.stack.push(Value::Bool(false)),
                b'K' => self.int(1, false)?,
                b'M' => self.int(2, false)?,
                b'J' => self.int(4, true)?,
                0x8a => {
                    let n = self.length(1)?;
                    if n > 8 {
                        return Err(wrong("has an integer of more than 64 bits"));
                    }
                    self.int(n, true)?;
                }
                b'G' => {
                    let bytes = self.take(8)?.try_into().unwrap_or_default();
                    self.stack.push(Value::Float(f64::from_be_bytes(bytes)));
                }
                b'X' => self.text(4)?,
                0x8c | b'U' => self.text(1)?,
                b'T' => self.text(4)?,
                b']' | b')' => {
                    let list = self.list(vec![])?;
                    self.stack.push(list);
                }
                b't' => {
                    let items = self.since_mark()?;
                    let list = self.list(items)?;
                    self.stack.push(list);
                }
                0x85..=0x87 => {
                    let items = self.last(usize::from(op - 0x84))?;
                    let list = self.list(items)?;
                    self.stack.push(list);
                }
                b'}' => {
                    let dict = self.dict()?;
                    self.stack.push(dict);
                }
                b'a' => {
                    let items = self.last(1)?;
                    self.append(items)?;
                }
                b'e' => {
                    let items = self.since_mark()?;
                    self.append(items)?;
                }
                b's' => {
                    let items = self.last(2)?;
                    self.set(&items)?;
                }
                b'u' => {
                    let items = self.since_mark()?;
                    self.set(&items)?;
                }
                b'q' => {
                    let i = self.length(1)?;
                    self.remember(i)?;
                }
                b'r' => {
                    let i = self.length(4)?;
                    self.remember(i)?;
                }
                0x94 => self.remember(self.memo.len())?,
                b'h' => {
                    let i = self.length(1)?;
                    self.recall(i)?;
                }
                b'j' => {
                    let i = self.length(4)?;
                    self.recall(i)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    let global = global(module, name)?;
                    self.stack.push(Value::Global(global));
                }
                b'Q' => self.persistent()?,
                b'R' => self.reduce()?,
                other => {
                    return Err(wrong(format!("has objects that are neither tensors nor plain (opcode {other:#04x})")));
                }
            }
        }
    }
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let found = self.at.checked_add(n).and_then(|end| self.pickle.get(self.at..end));
        let found = found.ok_or_else(|| wrong("ends early"))?;
        self.at += n;
        Ok(found)
    }
    /// A little-endian length of so many bytes.
    fn length(&mut self, bytes: usize) -> Result<usize> {
        let raw = self.take(bytes)?;
        Ok(raw.iter().rev().fold(0, |n, b| n << 8 | usize::from(*b)))
    }
    fn int(&mut self, bytes: usize, signed: bool) -> Result<()> {
        let element = Element::new(if signed { Kind::Signed } else { Kind::Unsigned }, bytes.max(1));
        let raw = if bytes == 0 { &[0][..] } else { self.take(bytes)? };
        self.stack.push(Value::Int(element.integer(raw) as i64));
        Ok(())
    }
    fn text(&mut self, bytes: usize) -> Result<()> {
        let n = self.length(bytes)?;
        let start = self.at;
        self.take(n)?;
        // The pickle is far shorter than 4 GiB.
        self.stack.push(Value::Text(start as u32, n as u32));
        Ok(())
    }
    fn line(&mut self) -> Result<&'a [u8]> {
        let rest = &self.pickle[self.at..];
        let end = rest.iter().position(|b| *b == b'\n').ok_or_else(|| wrong("ends early"))?;
        self.at += end + 1;
        Ok(&rest[..end])
    }
    fn pop(&mut self) -> Result<Value> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(wrong("takes a value that is not there"));
        }
        self.stack.pop().ok_or_else(|| wrong("takes a value that is not there"))
    }
    fn last(&mut self, n: usize) -> Result<Vec<Value>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let start = self.stack.len().checked_sub(n).filter(|s| *s >= floor);
        Ok(self.stack.split_off(start.ok_or_else(|| wrong("takes a value that is not there"))?))
    }
    fn since_mark(&mut self) -> Result<Vec<Value>> {
        let mark = self.marks.pop().ok_or_else(|| wrong("has a list without a start"))?;
        Ok(self.stack.split_off(mark))
    }
    fn room(&self) -> Result<u32> {
        let o = &self.objects;
        let count = o.lists.len() + o.dicts.len() + o.tensors.len() + o.storages.len();
        if count < OBJECTS { Ok(count as u32) } else { Err(wrong("has more than 4 million lists and tensors")) }
    }
    fn list(&mut self, items: Vec<Value>) -> Result<Value> {
        self.room()?;
        self.objects.lists.push(items);
        Ok(Value::List(self.objects.lists.len() as u32 - 1))
    }
    fn dict(&mut self) -> Result<Value> {
        self.room()?;
        self.objects.dicts.push(vec![]);
        Ok(Value::Dict(self.objects.dicts.len() as u32 - 1))
    }
    fn append(&mut self, items: Vec<Value>) -> Result<()> {
        match self.stack.last() {
            Some(Value::List(l)) => self.objects.lists[*l as usize].extend(items),
            _ => return Err(wrong("appends to what is no list")),
        }
        Ok(())
    }
    fn set(&mut self, items: &[Value]) -> Result<()> {
        let Some(Value::Dict(d)) = self.stack.last() else { return Err(wrong("sets a key of what is no dictionary")) };
        let dict = &mut self.objects.dicts[*d as usize];
        if !items.len().is_multiple_of(2) {
            return Err(wrong("has a key without a value"));
        }
        dict.extend(items.chunks_exact(2).map(|e| (e[0], e[1])));
        if dict.len() > KEYS { Err(wrong(format!("has a dictionary of more than {KEYS} keys"))) } else { Ok(()) }
    }
    /// Values are numbered in the order in which they are first met, so a number far ahead is refused.
    fn remember(&mut self, i: usize) -> Result<()> {
        let value = *self.stack.last().ok_or_else(|| wrong("takes a value that is not there"))?;
        let next = self.memo.len();
        match self.memo.get_mut(i) {
            Some(old) => *old = value,
            None if i == next => self.memo.push(value),
            None => return Err(wrong(format!("numbers a value {i} behind {next}"))),
        }
        Ok(())
    }
    fn recall(&mut self, i: usize) -> Result<()> {
        let value = self.memo.get(i).ok_or_else(|| wrong(format!("refers to the value {i}, which is not there")))?;
        self.stack.push(*value);
        Ok(())
    }
    fn items(&self, v: Value) -> &[Value] {
        match v {
            Value::List(l) => &self.objects.lists[l as usize],
            _ => &[],
        }
    }
    /// A storage: ("storage", its type, its key, the device, elements).
    fn persistent(&mut self) -> Result<()> {
        let id = self.pop()?;
        let &[kind, Value::Global(Global::Storage(element, bytes)), key, _, count] = self.items(id) else {
            return Err(wrong("has a persistent object that is no storage"));
        };
        let (Some(b"storage"), Some(key), Some(count)) = (kind.text(self.pickle), key.text(self.pickle), count.size())
        else {
            return Err(wrong("has a persistent object that is no storage"));
        };
        let element = Element::new(element, bytes.into());
        let range = (self.storage)(key, element, count)?;
        self.room()?;
        self.objects.storages.push((element, range));
        self.stack.push(Value::Storage(self.objects.storages.len() as u32 - 1));
        Ok(())
    }
    fn reduce(&mut self) -> Result<()> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let value = match (callee, self.items(arguments)) {
            (Value::Global(Global::OrderedDict), []) => self.dict()?,
            (Value::Global(Global::Size), &[sizes @ Value::List(_)]) => sizes,
            // (Storage, offset, shape, strides, requires_grad, hooks, perhaps metadata.)
            (Value::Global(Global::RebuildTensor), &[Value::Storage(s), offset, shape, strides, ..]) => {
                let sizes = |v: Value| self.items(v).iter().map(|v| v.size()).collect::<Option<Vec<usize>>>();
                let (Some(offset), Some(shape), Some(strides)) = (offset.size(), sizes(shape), sizes(strides)) else {
                    return Err(wrong("has a tensor without a sound shape"));
                };
                if shape.len() > 8 {
                    return Err(wrong(format!("has a tensor of {} dimensions", shape.len())));
                }
                let (element, range) = self.objects.storages[s as usize].clone();
                let tensor = Tensor::new(range, element, offset, shape, strides)?;
                self.room()?;
                self.objects.tensors.push(tensor);
                Value::Tensor(self.objects.tensors.len() as u32 - 1)
            }
            _ => return Err(wrong("has objects that are neither tensors nor plain (a call of another form)")),
        };
        self.stack.push(value);
        Ok(())
    }
}

/// A name that a pickle of tensors has; others could be anything.
fn global(module: &[u8], name: &[u8]) -> Result<Global> {
    let storage = |kind, bytes| Ok(Global::Storage(kind, bytes));
    match (module, name) {
        (b"torch._utils", b"_rebuild_tensor_v2") => Ok(Global::RebuildTensor),
        (b"collections", b"OrderedDict") => Ok(Global::OrderedDict),
        (b"torch", b"Size") => Ok(Global::Size),
        (b"torch", b"ByteStorage" | b"BoolStorage") => storage(Kind::Unsigned, 1),
        (b"torch", b"CharStorage") => storage(Kind::Signed, 1),
        (b"torch", b"ShortStorage") => storage(Kind::Signed, 2),
        (b"torch", b"IntStorage") => storage(Kind::Signed, 4),
        (b"torch", b"LongStorage") => storage(Kind::Signed, 8),
        (b"torch", b"FloatStorage") => storage(Kind::Float, 4),
        (b"torch", b"DoubleStorage") => storage(Kind::Float, 8),
        (b"torch", b"BFloat16Storage") => storage(Kind::Brain, 2),
        _ => {
            let shown = |t: &[u8]| String::from_utf8_lossy(&t[..t.len().min(60)]).escape_default().to_string();
            let problem = format!("is a pickle that is not only tensors: it names {}.{}", shown(module), shown(name));
            Err(wrong(problem).cure("save plain tensors, lists, dictionaries and numbers"))
        }
    }
}
