//! Reader of PyTorch checkpoints (`.pth`, `.pt`, `.bin`): zip archives, which PyTorch writes since 1.6,
//! and the legacy form before, a sequence of pickles. Pickles are read by `pickle.rs`, and nothing in
//! them is ever called.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::mem::size_of;

use super::element::{ByteOrder, Element};
use super::pickle::{Found, Pickle, Storage, StorageType, View};
use super::refusal::Refusal;
use super::zip::Archive;
use crate::tensor::HostTensor;
use crate::weights::tensor_info::TensorInfo;

/// Longest pickle that is read. That of a Mixer of 32 blocks has 60 kB, and three times as much with the
/// state of its optimizer.
const MAX_PICKLE_BYTES: u64 = 16 << 20;

/// Longest text beside the tensors: the byte order.
const MAX_TEXT_BYTES: u64 = 64;

const LITTLE_ENDIAN: &str = "load it in PyTorch on the machine that wrote it, and save safetensors";

/// An open checkpoint, with its pickle read and its tensors still in the file.
pub(crate) struct PytorchFile<R> {
    reader: R,
    tensors: Vec<Tensor>,
    storages: Vec<PlacedStorage>,
    fault: Option<Refusal>,
}

struct Tensor {
    name: String,
    view: View,
}

struct PlacedStorage {
    storage: Storage,
    /// Its beginning in the file; `None` when it is not there.
    start: Option<u64>,
}

impl<R: Read + Seek> PytorchFile<R> {
    /// Reads an archive. Tensors of nested dictionaries get dotted names, sorted.
    pub(crate) fn open_archive(mut archive: Archive<R>) -> Result<Self, Refusal> {
        let folders =
            archive.members().iter().filter_map(|member| member.name.strip_suffix("data.pkl"));
        let folder = folders
            .filter(|folder| folder.is_empty() || folder.ends_with('/'))
            .min_by_key(|folder| folder.len())
            .ok_or_else(|| Refusal::new("an archive without `data.pkl`"))?
            .to_owned();
        if archive.find(&format!("{folder}constants.pkl")).is_some() {
            return Err(Refusal::with_hint(
                "a program of TorchScript, expected weights",
                "in PyTorch: `torch.save(torch.jit.load(FILE).state_dict(), OUT)`",
            ));
        }
        if let Some(member) = archive.members().iter().find(|member| member.is_deflated) {
            let reason = format!("member `{}` is packed, which PyTorch never does", member.name);
            return Err(Refusal::with_hint(reason, "load it in PyTorch and save it again"));
        }
        if let Some(member) = archive.find(&format!("{folder}byteorder")) {
            let order = archive.read_all(member, MAX_TEXT_BYTES)?;
            if order.trim_ascii() != b"little" {
                let order = String::from_utf8_lossy(&order).into_owned();
                let reason = format!("byte order `{order}`, expected `little`");
                return Err(Refusal::with_hint(reason, LITTLE_ENDIAN));
            }
        }
        let Some(member) = archive.find(&format!("{folder}data.pkl")) else {
            return Err(Refusal::new("an archive without `data.pkl`"));
        };
        let bytes = archive.read_all(member, MAX_PICKLE_BYTES)?;
        let pickle = Pickle::parse(&bytes)?;
        let (tensors, fault) = tensors_of(&pickle)?;
        let mut storages = Vec::with_capacity(pickle.storages.len());
        for storage in pickle.storages {
            let name = format!("{folder}data/{}", storage.key);
            let member = archive.find(&name).map(|index| &archive.members()[index]);
            let expected = storage.len * storage.element.size();
            if let Some(found) = member.map(|member| member.bytes).filter(|n| *n != expected) {
                let reason = format!("`{name}` has {found} bytes, expected {expected}");
                return Err(reason.into());
            }
            storages.push(PlacedStorage { storage, start: member.map(|member| member.start) });
        }
        Ok(Self { reader: archive.into_file(), tensors, storages, fault })
    }

    /// Reads a legacy file: a magic number, a version, the machine, the checkpoint and the names of its
    /// storages, each a pickle, and then the storages.
    pub(crate) fn open_legacy(mut reader: R, file_bytes: u64) -> Result<Self, Refusal> {
        let io = |error: std::io::Error| Refusal::new(error.to_string());
        let mut bytes = Vec::with_capacity(file_bytes.min(MAX_PICKLE_BYTES) as usize);
        reader.seek(SeekFrom::Start(0)).map_err(io)?;
        reader.by_ref().take(MAX_PICKLE_BYTES).read_to_end(&mut bytes).map_err(io)?;
        let mut at = 0;
        let mut next = || {
            let pickle = Pickle::parse(&bytes[at..])?;
            at += pickle.bytes;
            Ok::<_, Refusal>(pickle)
        };
        let magic = next()?;
        if !magic.is_legacy_magic() {
            let reason = "a pickle without tensors, expected a checkpoint of `torch.save`";
            return Err(magic.unknown().unwrap_or_else(|| Refusal::new(reason)));
        }
        let version = next()?.as_int();
        if version != Some(1001) {
            return Err(format!("legacy version {version:?}, expected 1001").into());
        }
        if next()?.flag("little_endian") != Some(true) {
            let reason = "a legacy file that does not say it is little-endian";
            return Err(Refusal::with_hint(reason, LITTLE_ENDIAN));
        }
        let pickle = next()?;
        let keys = next()?.texts().ok_or_else(|| "no list of storages".to_owned())?;
        let (tensors, fault) = tensors_of(&pickle)?;
        let mut storages: Vec<PlacedStorage> = pickle
            .storages
            .into_iter()
            .map(|storage| PlacedStorage { storage, start: None })
            .collect();
        let by_key: HashMap<String, usize> =
            storages.iter().enumerate().map(|(i, s)| (s.storage.key.clone(), i)).collect();
        let mut start = at as u64;
        for key in keys {
            let Some(placed) = by_key.get(&key).map(|&index| &mut storages[index]) else {
                return Err(format!("storage `{key}`, which no tensor has").into());
            };
            let mut len = [0; size_of::<u64>()];
            reader.seek(SeekFrom::Start(start)).map_err(io)?;
            reader.read_exact(&mut len).map_err(io)?;
            let (len, expected) = (u64::from_le_bytes(len), placed.storage.len);
            if len != expected {
                let reason = format!("storage `{key}` of {len} elements, expected {expected}");
                return Err(reason.into());
            }
            start += size_of::<u64>() as u64;
            if placed.start.replace(start).is_some() {
                return Err(format!("storage `{key}` is there twice").into());
            }
            // The product was checked by the pickle's reader.
            let end = start.checked_add(len * placed.storage.element.size());
            start = end.filter(|end| *end <= file_bytes).ok_or_else(|| {
                format!("truncated: storage `{key}` of {len} elements ends after the file")
            })?;
        }
        if start != file_bytes {
            return Err(format!("{} bytes follow the last storage", file_bytes - start).into());
        }
        Ok(Self { reader, tensors, storages, fault })
    }

    /// The tensors, sorted by name.
    pub(crate) fn tensors(&self) -> Vec<TensorInfo> {
        self.tensors
            .iter()
            .map(|tensor| TensorInfo {
                name: tensor.name.clone(),
                shape: tensor.view.shape.clone(),
                dtype: self.element(tensor).name().to_owned(),
            })
            .collect()
    }

    /// The reason why something beside the tensors was passed over.
    pub(crate) fn fault(&self) -> Option<&Refusal> {
        self.fault.as_ref()
    }

    fn element(&self, tensor: &Tensor) -> StorageType {
        self.storages[tensor.view.storage].storage.element
    }

    /// Checks that the tensors could lie in a file of this size. Many tensors can share a storage, so the
    /// file alone bounds nothing.
    pub(crate) fn check_sizes(
        &self,
        indices: impl Iterator<Item = usize>,
        file_bytes: u64,
    ) -> Result<(), String> {
        let claimed = indices.fold(0_u64, |bytes, index| {
            let tensor = &self.tensors[index];
            let tensor_bytes = tensor.view.len().saturating_mul(self.element(tensor).size());
            bytes.saturating_add(tensor_bytes)
        });
        if claimed > file_bytes {
            return Err(format!("tensors of {claimed} bytes in a file of {file_bytes}"));
        }
        Ok(())
    }

    /// Reads one tensor, in C order whatever its strides.
    pub(crate) fn load(&mut self, index: usize) -> Result<HostTensor, String> {
        let Tensor { name, view } = &self.tensors[index];
        let PlacedStorage { storage, start } = &self.storages[view.storage];
        let say = |reason: String| format!("tensor `{name}`: {reason}");
        let element = match storage.element {
            StorageType::F16 => Element::F16,
            StorageType::BF16 => Element::BF16,
            StorageType::F32 => Element::F32,
            StorageType::F64 => Element::F64,
            other => {
                let reason = format!("is {}, expected f16, bf16, f32 or f64", other.name());
                return Err(say(reason));
            }
        };
        let Some(start) = start else {
            return Err(say(format!("storage `{}` is not in the file", storage.key)));
        };
        // From the first element to the last. Both lie in the storage, and that in the file.
        let num_values = if view.is_contiguous() { view.len() } else { view.extent().unwrap_or(0) };
        let start = start + view.offset * storage.element.size();
        self.reader.seek(SeekFrom::Start(start)).map_err(|error| say(error.to_string()))?;
        let num_values = usize::try_from(num_values).map_err(|error| say(error.to_string()))?;
        let mut data = element
            .read(&mut self.reader, ByteOrder::Little, num_values)
            .map_err(|error| say(error.to_string()))?;
        if !view.is_contiguous() {
            data = gathered(&data, view);
        }
        Ok(HostTensor { shape: view.shape.clone(), data })
    }
}

fn tensors_of(pickle: &Pickle) -> Result<(Vec<Tensor>, Option<Refusal>), Refusal> {
    let Found { tensors, fault } = pickle.tensors()?;
    let tensor = |(name, view): (String, &View)| Tensor { name, view: view.clone() };
    Ok((tensors.into_iter().map(tensor).collect(), fault))
}

/// The values of a view in C order; `values` begin with its first one.
fn gathered(values: &[f32], view: &View) -> Vec<f32> {
    let len = view.len() as usize;
    let mut data = Vec::with_capacity(len);
    let mut index = vec![0; view.shape.len()];
    let mut at = 0;
    while data.len() < len {
        data.push(values[at]);
        // Counts up, like an odometer.
        for axis in (0..index.len()).rev() {
            index[axis] += 1;
            at += view.strides[axis];
            if index[axis] < view.shape[axis] {
                break;
            }
            at -= view.strides[axis] * view.shape[axis];
            index[axis] = 0;
        }
    }
    data
}
