//! Weights files in and out: what is written is read back bit for bit, every format means the same
//! weights, and a bad file is one clear error and never a panic.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use mixer_model::weights::{Interpolation, Preprocessing, ResizeRule, Shuffle, WeightsFormat};
use mixer_model::{
    Gelu, HostTensor, Metadata, MixerConfig, ModelError, ParameterSpec, Weights, parameters,
};
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// The dimensions of the fixtures, all different, so that a wrong transpose cannot pass.
fn tiny() -> MixerConfig {
    MixerConfig {
        image_size: 24,
        patch_size: 4,
        hidden_dim: 10,
        tokens: mixer_model::TokenLayer::Mlp { tokens_mlp_dim: 14 },
        channels_mlp_dim: 22,
        num_blocks: 2,
        num_classes: 7,
        gelu: Gelu::Tanh,
    }
}

/// Every value of every tensor different, and exact in f16.
fn tiny_tensors() -> BTreeMap<String, HostTensor> {
    let mut count = 0;
    parameters(&tiny())
        .into_iter()
        .map(|ParameterSpec { name, shape, .. }| {
            let len: usize = shape.iter().product();
            let data = (0..len)
                .map(|_| {
                    count += 1;
                    f32::from_bits((0x3880 + (count / 1024) * 0x80) << 16 | (count % 1024) << 13)
                })
                .collect();
            (name, HostTensor { shape, data })
        })
        .collect()
}

fn tiny_weights() -> Weights {
    Weights::new(tiny(), tiny_tensors(), Metadata::default()).unwrap()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A directory with one file in it.
fn file(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn read_bytes(name: &str, bytes: &[u8]) -> Result<Weights, ModelError> {
    let (_dir, path) = file(name, bytes);
    Weights::read(&path, None)
}

/// A zip archive of the given members.
fn zip(members: &[(String, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        let options = SimpleFileOptions::default().compression_method(method);
        archive.start_file(name, options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// An `.npy` file with the header's dictionary as given.
fn npy(dictionary: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    let header = format!("{dictionary}\n");
    bytes.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn npy_of(descr: &str, fortran: bool, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let sizes: String = shape.iter().map(|size| format!("{size}, ")).collect();
    let fortran = if fortran { "True" } else { "False" };
    let dictionary =
        format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': ({sizes}), }}");
    npy(&dictionary, data)
}

/// The official name and layout of a timm tensor.
fn flax(name: &str, tensor: &HostTensor) -> (String, HostTensor) {
    let mut key = name.replace('.', "/");
    for (timm, official) in [
        ("stem/proj", "stem"),
        ("/norm1/", "/LayerNorm_0/"),
        ("/norm2/", "/LayerNorm_1/"),
        ("mlp_tokens", "token_mixing"),
        ("mlp_channels", "channel_mixing"),
        ("fc1", "Dense_0"),
        ("fc2", "Dense_1"),
        ("blocks/", "MixerBlock_"),
    ] {
        key = key.replace(timm, official);
    }
    if let Some(rest) = key.strip_prefix("norm/") {
        key = format!("pre_head_layer_norm/{rest}");
    }
    let parameter = if key.contains("orm") { "scale" } else { "kernel" };
    key = key.replace("weight", parameter);
    let tensor = match tensor.shape.len() {
        4 => tensor.permuted(&[2, 3, 1, 0]),
        2 => tensor.permuted(&[1, 0]),
        _ => tensor.clone(),
    };
    (key, tensor)
}

fn npz_of(
    tensors: &BTreeMap<String, HostTensor>,
    descr: &str,
    fortran: bool,
    encode: impl Fn(f32) -> Vec<u8>,
) -> Vec<(String, Vec<u8>)> {
    tensors
        .iter()
        .map(|(name, tensor)| {
            let (key, tensor) = flax(name, tensor);
            let axes: Vec<usize> = (0..tensor.shape.len()).rev().collect();
            let stored = if fortran { tensor.permuted(&axes) } else { tensor.clone() };
            let data: Vec<u8> = stored.data.iter().flat_map(|value| encode(*value)).collect();
            (format!("{key}.npy"), npy_of(descr, fortran, &tensor.shape, &data))
        })
        .collect()
}

fn f32_bytes(value: f32) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

/// Exact for the values of [`tiny_tensors`].
fn f16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let exponent = (bits >> 23) as u16;
    (exponent - 112) << 10 | (bits >> 13) as u16 & 0x3ff
}

/// A safetensors file through the reference implementation.
fn safetensors_of(
    tensors: &BTreeMap<String, HostTensor>,
    dtype: Dtype,
    encode: impl Fn(f32) -> Vec<u8>,
) -> Vec<u8> {
    let bytes: Vec<(&String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, tensor)| {
            let bytes = tensor.data.iter().flat_map(|value| encode(*value)).collect();
            (name, tensor.shape.clone(), bytes)
        })
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

fn assert_same_bits(found: &Weights, expected: &BTreeMap<String, HostTensor>) {
    assert!(found.tensors.keys().eq(expected.keys()));
    for (name, tensor) in expected {
        assert_eq!(found.tensors[name].shape, tensor.shape, "{name}");
        let bits = |tensor: &HostTensor| -> Vec<u32> {
            tensor.data.iter().map(|value| value.to_bits()).collect()
        };
        assert!(bits(&found.tensors[name]) == bits(tensor), "{name}");
    }
}

// --- what we write ---------------------------------------------------------------------------

#[test]
fn what_is_written_is_read_back_bit_for_bit() {
    let mut weights = tiny_weights();
    let special = [-0.0, f32::MIN_POSITIVE / 8.0, f32::MAX];
    weights.tensors.get_mut("norm.bias").unwrap().data[..3].copy_from_slice(&special);
    weights.metadata = Metadata {
        classes: Some((0..7).map(|i| format!("class \"{i}\" é\n")).collect()),
        preprocessing: Some(Preprocessing {
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            resize: ResizeRule::Squash,
            interpolation: Interpolation::Bilinear,
            apply_exif_orientation: true,
            jpeg_scaling: true,
            shuffle: Shuffle::Pixels { seed: u32::MAX },
        }),
        temperature: Some(1.25),
        provenance: BTreeMap::from([("run".to_owned(), "somewhere".to_owned())]),
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights.safetensors");
    weights.write_safetensors(&path).unwrap();
    let back = Weights::read(&path, None).unwrap();
    assert_same_bits(&back, &weights.tensors);
    assert_eq!(back.config, weights.config);
    assert_eq!(back.metadata, weights.metadata);
    back.check_finite().unwrap();
}

#[test]
fn weights_that_are_not_finite_are_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut weights = tiny_weights();
    weights.tensors.get_mut("norm.bias").unwrap().data[1] = f32::NAN;
    weights.tensors.get_mut("head.bias").unwrap().data[..2].fill(f32::INFINITY);
    for error in [
        weights.check_finite().unwrap_err(),
        weights.write_safetensors(&dir.path().join("w.safetensors")).unwrap_err(),
        weights.write_npz(&dir.path().join("w.npz")).unwrap_err(),
    ] {
        assert_eq!(
            error.to_string(),
            "weights that are not finite are not written: 2 values of `head.bias`, and some of 1 \
             other parameters"
        );
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(weights.non_finite(), BTreeMap::from([("head.bias", 2), ("norm.bias", 1)]));
}

#[test]
fn a_folder_for_timm_has_what_timm_needs() {
    let dir = tempfile::tempdir().unwrap();
    let (own, known) = (dir.path().join("own"), dir.path().join("known"));
    let mut weights = tiny_weights();
    let classes: Vec<String> = ["b", "A", "c", "a b", "10", "9", "é"].map(str::to_owned).to_vec();
    weights.metadata.classes = Some(classes);
    weights.metadata.preprocessing =
        Some(Preprocessing { resize: ResizeRule::Squash, ..Preprocessing::default() });
    let more = |file: &std::path::Path| {
        assert!(file.is_file(), "the weights are there already");
        Ok("\n## Results\n".to_owned())
    };
    weights.write_timm_folder(&own, more).unwrap();
    let text = |name: &str| std::fs::read_to_string(own.join(name)).unwrap();
    assert_eq!(text("class_map.txt"), "b\nA\nc\na b\n10\n9\né\n");
    let config: serde_json::Value = serde_json::from_str(&text("config.json")).unwrap();
    assert_eq!(config["pretrained_cfg"]["crop_mode"], "squash");
    assert_eq!(config["pretrained_cfg"]["interpolation"], "bicubic");
    assert_eq!(config["label_names"][1], "A");
    assert_eq!(config["model_args"]["patch_size"], 4);
    assert!(text("mixer_timm.py").contains("def mixer_own"));
    let card = text("README.md");
    assert!(card.starts_with("---\nlibrary_name: timm\n") && card.ends_with("\n## Results\n"));
    assert!(card.contains("class_map.txt") && card.contains("resized to 24 × 24 px"), "{card}");
    assert!(card.contains("less 0.5, 0.5, 0.5, divided by 0.5, 0.5, 0.5"), "{card}");
    // The folder is one of those that are read.
    assert_eq!(Weights::read(&own, None).unwrap(), weights);
    assert!(matches!(weights.write_timm_folder(&own, more).unwrap_err(), ModelError::Io { .. }));

    let config = MixerConfig {
        image_size: 32,
        patch_size: 32,
        hidden_dim: 512,
        num_blocks: 8,
        tokens: mixer_model::TokenLayer::Mlp { tokens_mlp_dim: 3 },
        channels_mlp_dim: 5,
        num_classes: 2,
        gelu: Gelu::Tanh,
    };
    let tensors = parameters(&config)
        .into_iter()
        .map(|spec| (spec.name, HostTensor::filled(&spec.shape, 0.5)))
        .collect();
    let metadata = Metadata::default();
    let nothing = |_: &std::path::Path| Ok(String::new());
    Weights::new(config, tensors, metadata).unwrap().write_timm_folder(&known, nothing).unwrap();
    let config = std::fs::read_to_string(known.join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["architecture"], "mixer_s32_224");
    assert!(!known.join("mixer_timm.py").exists() && !known.join("class_map.txt").exists());
    let readme = std::fs::read_to_string(known.join("README.md")).unwrap();
    assert!(readme.contains("GELUTanh") && readme.contains("do not say how"), "{readme}");

    weights.metadata.classes.as_mut().unwrap()[0] = "a\nb".to_owned();
    let error = weights.write_timm_folder(&dir.path().join("other"), nothing).unwrap_err();
    assert!(matches!(error, ModelError::ClassName { .. }));
    assert!(!dir.path().join("other").exists());
}

#[test]
fn an_npz_goes_to_our_form_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights.npz");
    // Present and legacy names; what is written has the present ones.
    for name in ["flax_tiny.npz", "flax_tiny_legacy.npz"] {
        let official = Weights::read(&fixture(name), None).unwrap();
        official.write_npz(&path).unwrap();
        assert_eq!(Weights::read(&path, None).unwrap(), official, "{name}");
    }
    let listing = |path: &Path| -> BTreeMap<String, Vec<usize>> {
        let info = Weights::file_info(path).unwrap();
        info.tensors.into_iter().map(|tensor| (tensor.name, tensor.shape)).collect()
    };
    assert_eq!(listing(&path), listing(&fixture("flax_tiny.npz")));
    // As NumPy writes them: another reader of archives, and the same bytes for each array.
    let mut archive = zip::ZipArchive::new(std::fs::File::open(&path).unwrap()).unwrap();
    for (key, tensor) in tiny_tensors().iter().map(|(name, tensor)| flax(name, tensor)) {
        let mut member = archive.by_name(&format!("{key}.npy")).unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut member, &mut bytes).unwrap();
        let data = bytes.split_off(bytes.len() - 4 * tensor.data.len());
        assert_eq!(bytes.len() % 64, 0, "{key}: data that is not aligned");
        assert_eq!(data.len(), 4 * tensor.shape.iter().product::<usize>());
    }
    let first = std::fs::read(&path).unwrap();
    Weights::read(&path, None).unwrap().write_npz(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first);
}

#[test]
fn two_writes_give_the_same_bytes_and_leave_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights.safetensors");
    let mut weights = tiny_weights();
    for key in ["b", "a", "d", "c"] {
        weights.metadata.provenance.insert(key.to_owned(), key.to_owned());
    }
    weights.write_safetensors(&path).unwrap();
    let first = std::fs::read(&path).unwrap();
    weights.clone().write_safetensors(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first);
    assert_eq!(weights.to_safetensors_bytes().unwrap(), first);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn the_reference_implementation_reads_our_files() {
    let weights = tiny_weights();
    let bytes = weights.to_safetensors_bytes().unwrap();
    let (header_bytes, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header_bytes % 8, 0, "readers that map the file want aligned data");
    let metadata: &HashMap<String, String> = header.metadata().as_ref().unwrap();
    assert_eq!(metadata["format"], "pt");
    let ours: serde_json::Value = serde_json::from_str(&metadata["mixer"]).unwrap();
    assert_eq!(ours["format_version"], 1);
    assert_eq!(ours["config"]["gelu"], "tanh");
    assert_eq!(ours["config"]["hidden_dim"], 10);
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), weights.tensors.len());
    for (name, tensor) in &weights.tensors {
        let view = file.tensor(name).unwrap();
        assert_eq!((view.dtype(), view.shape()), (Dtype::F32, tensor.shape.as_slice()), "{name}");
        let bytes: Vec<u8> = tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(view.data(), bytes, "{name}");
    }
}

#[test]
fn preprocessing_is_written_as_documented() {
    let json = serde_json::to_string(&Preprocessing::default()).unwrap();
    assert_eq!(
        json,
        r#"{"mean":[0.5,0.5,0.5],"std":[0.5,0.5,0.5],"resize":{"kind":"resmall_crop","fraction":0.875},"interpolation":"bicubic","apply_exif_orientation":false}"#
    );
    assert_eq!(serde_json::to_string(&ResizeRule::Squash).unwrap(), r#"{"kind":"squash"}"#);
}

#[test]
fn weights_that_are_not_whole_are_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights.safetensors");
    let mut short = tiny_weights();
    short.tensors.get_mut("head.bias").unwrap().data.pop();
    let error = short.write_safetensors(&path).unwrap_err();
    assert!(error.to_string().contains("head.bias has 6 values for the shape [7]"), "{error}");
    let mut named = tiny_weights();
    named.metadata.classes = Some(vec!["cat".to_owned()]);
    assert!(matches!(
        named.write_safetensors(&path).unwrap_err(),
        ModelError::ClassCount { found: 1, expected: 7 }
    ));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_failed_write_names_the_file_and_keeps_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let error =
        tiny_weights().write_safetensors(&dir.path().join("missing/w.safetensors")).unwrap_err();
    assert!(matches!(error, ModelError::Io { .. }));
    assert!(error.to_string().contains("missing"), "{error}");
    // A directory cannot be replaced by a file.
    let taken = dir.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    assert!(tiny_weights().write_safetensors(&taken).is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

// --- what we read ----------------------------------------------------------------------------

#[test]
fn the_activation_is_the_metadatas_else_the_formats_and_can_be_overridden() {
    let (_dir, ours) = file("w", &tiny_weights().to_safetensors_bytes().unwrap());
    assert_eq!(Weights::read(&ours, None).unwrap().config.gelu, Gelu::Tanh);
    assert_eq!(Weights::read(&ours, Some(Gelu::Erf)).unwrap().config.gelu, Gelu::Erf);
    let bytes = safetensors_of(&tiny_tensors(), Dtype::F32, f32_bytes);
    let (_dir, timm) = file("w", &bytes);
    assert_eq!(Weights::read(&timm, None).unwrap().config.gelu, Gelu::Erf);
    assert_eq!(Weights::read(&timm, Some(Gelu::Tanh)).unwrap().config, tiny());
    let members = npz_of(&tiny_tensors(), "<f4", false, f32_bytes);
    let (_dir, npz) = file("w", &zip(&members, CompressionMethod::Stored));
    assert_eq!(Weights::read(&npz, None).unwrap().config, tiny());
    assert_eq!(Weights::read(&npz, Some(Gelu::Erf)).unwrap().config.gelu, Gelu::Erf);
}

#[test]
fn every_element_type_of_safetensors_is_read() {
    let tensors = tiny_tensors();
    for bytes in [
        safetensors_of(&tensors, Dtype::F32, f32_bytes),
        safetensors_of(&tensors, Dtype::F64, |v| f64::from(v).to_le_bytes().to_vec()),
        safetensors_of(&tensors, Dtype::F16, |v| f16_bits(v).to_le_bytes().to_vec()),
    ] {
        assert_same_bits(&read_bytes("w.safetensors", &bytes).unwrap(), &tensors);
    }
    let bf16 = |v: f32| ((v.to_bits() >> 16) as u16).to_le_bytes().to_vec();
    let weights = read_bytes("w", &safetensors_of(&tensors, Dtype::BF16, bf16)).unwrap();
    let mut truncated = tensors;
    for value in truncated.values_mut().flat_map(|tensor| &mut tensor.data) {
        *value = f32::from_bits(value.to_bits() & 0xffff_0000);
    }
    assert_same_bits(&weights, &truncated);
}

#[test]
fn every_element_type_and_order_of_npz_is_read() {
    let tensors = tiny_tensors();
    for members in [
        npz_of(&tensors, "<f4", false, f32_bytes),
        npz_of(&tensors, "<f4", true, f32_bytes),
        npz_of(&tensors, ">f4", false, |v| v.to_be_bytes().to_vec()),
        npz_of(&tensors, "<f8", true, |v| f64::from(v).to_le_bytes().to_vec()),
        npz_of(&tensors, "<f2", false, |v| f16_bits(v).to_le_bytes().to_vec()),
    ] {
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            assert_same_bits(&read_bytes("w.npz", &zip(&members, method)).unwrap(), &tensors);
        }
    }
}

#[test]
fn the_extension_means_nothing() {
    let bytes = tiny_weights().to_safetensors_bytes().unwrap();
    for name in ["w.npz", "w.pth", "w", "w.safetensors"] {
        assert_eq!(read_bytes(name, &bytes).unwrap(), tiny_weights());
    }
}

#[test]
fn prefixes_of_wrappers_are_stripped() {
    let wrapped: BTreeMap<String, HostTensor> = tiny_tensors()
        .into_iter()
        .map(|(name, tensor)| (format!("module.model.{name}"), tensor))
        .collect();
    let bytes = safetensors_of(&wrapped, Dtype::F32, f32_bytes);
    assert_same_bits(&read_bytes("w", &bytes).unwrap(), &tiny_tensors());
}

#[test]
fn a_fresh_head_is_zero_with_a_constant_bias_and_no_names() {
    let mut weights = tiny_weights();
    weights.metadata.classes = Some(vec![String::new(); 7]);
    let fresh = weights.clone().with_fresh_head(3, -1.5);
    assert_eq!(fresh.config, MixerConfig { num_classes: 3, ..tiny() });
    assert_eq!(fresh.tensors["head.weight"], HostTensor::filled(&[3, 10], 0.0));
    assert_eq!(fresh.tensors["head.bias"], HostTensor::filled(&[3], -1.5));
    assert_eq!(fresh.metadata.classes, None);
    fresh.check_fits(&fresh.config).unwrap();
    assert_eq!(fresh.tensors["norm.bias"], weights.tensors["norm.bias"]);
}

#[test]
fn weights_that_do_not_fit_say_so_tensor_by_tensor() {
    let error = tiny_weights().check_fits(&MixerConfig { num_classes: 9, ..tiny() }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "weights do not fit Mixer(P=4, C=10, L=2, D_S=14, D_C=22) at 24 px, 9 classes:\n  \
         head.weight is [7, 10], expected [9, 10]\n  head.bias is [7], expected [9]"
    );
    let error = tiny_weights().check_fits(&MixerConfig { image_size: 48, ..tiny() }).unwrap_err();
    assert!(error.to_string().contains("fc1.weight is [14, 36], expected [14, 144]"), "{error}");
    tiny_weights().check_fits(&MixerConfig { gelu: Gelu::Erf, ..tiny() }).unwrap();
}

#[test]
fn any_readable_file_can_be_inspected() {
    let mut tensors = BTreeMap::new();
    tensors.insert("b", (Dtype::F32, [f32_bytes(f32::NAN), f32_bytes(1.0)].concat()));
    tensors.insert("a", (Dtype::I32, vec![0; 8]));
    let views = tensors
        .iter()
        .map(|(name, (dtype, bytes))| (name, TensorView::new(*dtype, vec![2], bytes).unwrap()));
    let metadata = HashMap::from([("key".to_owned(), "value".to_owned())]);
    let (_dir, path) = file("w", &safetensors::serialize(views, Some(metadata)).unwrap());
    let info = Weights::file_info(&path).unwrap();
    assert_eq!(info.format, WeightsFormat::Safetensors);
    assert_eq!(info.metadata["key"], "value");
    let listed: Vec<(&str, &str, Option<usize>)> = info
        .tensors
        .iter()
        .zip(&info.non_finite)
        .map(|(tensor, count)| (tensor.name.as_str(), tensor.dtype.as_str(), *count))
        .collect();
    assert!(listed.contains(&("a", "i32", None)) && listed.contains(&("b", "f32", Some(1))));
    let error = info.architecture.unwrap_err();
    assert!(matches!(error, ModelError::NotAMixer { .. }));

    let (_dir, path) = file("w", &tiny_weights().to_safetensors_bytes().unwrap());
    let info = Weights::file_info(&path).unwrap();
    assert_eq!(info.architecture.unwrap(), tiny());
    assert_eq!(info.tensors.len(), 30);
    assert!(info.non_finite.iter().all(|count| *count == Some(0)));
}

// --- fixtures of the reference implementations -----------------------------------------------

#[test]
fn official_checkpoints_mean_the_same_in_both_layouts_and_as_timm_weights() {
    let official = Weights::read(&fixture("flax_tiny.npz"), None).unwrap();
    assert_eq!(official.config, tiny());
    let legacy = Weights::read(&fixture("flax_tiny_legacy.npz"), None).unwrap();
    assert_eq!(legacy, official);
    let timm = Weights::read(&fixture("timm_tiny.safetensors"), None).unwrap();
    assert_eq!(timm.config, MixerConfig { gelu: Gelu::Erf, ..tiny() });
    assert_same_bits(&timm, &official.tensors);
}

#[test]
fn pytorch_checkpoints_mean_the_same_bare_and_wrapped() {
    let timm = Weights::read(&fixture("timm_tiny.safetensors"), None).unwrap();
    for name in ["timm_tiny.pth", "timm_tiny_wrapped.pth"] {
        let info = Weights::file_info(&fixture(name)).unwrap();
        assert_eq!(info.format, WeightsFormat::Pytorch);
        let weights = Weights::read(&fixture(name), None).unwrap();
        assert_eq!(weights.config, timm.config, "{name}");
        assert_same_bits(&weights, &timm.tensors);
    }
}

#[test]
fn one_network_means_the_same_in_every_form_that_it_is_saved_in() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let read = |name: &str| Weights::read(&seeds.join(name), None).unwrap().tensors;
    let expected = read("safetensors/plain.safetensors");
    // Among them the legacy form, and a training checkpoint of views with other strides.
    for name in [
        "safetensors/ours.safetensors",
        "npz/plain.npz",
        "npz/packed.npz",
        "pth/plain.pth",
        "pth/protocol4.pth",
        "pth/legacy.pth",
        "pth/checkpoint.pth",
        "pth/checkpoint_legacy.pth",
    ] {
        assert_eq!(read(name), expected, "{name}");
    }
    assert_eq!(read("pth/bf16.pth"), read("safetensors/bf16.safetensors"));
    for (name, tensor) in read("npz/halves.npz") {
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= b.abs() / 2048.0 + 1e-7;
        assert!(tensor.data.iter().zip(&expected[&name].data).all(close), "{name}");
    }
}

// --- bad files -------------------------------------------------------------------------------

/// The message of a file that must not be read: one line that ends in the path.
fn refused(name: &str, bytes: &[u8]) -> String {
    let (_dir, path) = file(name, bytes);
    let message = Weights::read(&path, None).unwrap_err().to_string();
    assert_eq!(message.lines().count(), 1, "{message}");
    let end = format!(": {}", path.display());
    message.strip_suffix(&end).unwrap_or_else(|| panic!("no path last: {message}")).to_owned()
}

#[test]
fn a_file_that_is_no_weights_file_is_one_clear_line() {
    let any = "not a readable npz, safetensors or pth weights file";
    assert_eq!(refused("w.npz", b""), format!("{any}: the file is empty"));
    assert_eq!(refused("w.pth", b"hello, world\n"), format!("{any}: the content is none of these"));
    assert!(refused("w", b"<!DOCTYPE html><html>").contains("a web page"));
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    assert!(refused("w", pointer).contains("Git LFS pointer"));
    let text = zip(&[("a.txt".to_owned(), b"a".to_vec())], CompressionMethod::Stored);
    assert!(refused("w.npz", &text).contains("neither .npy members nor data.pkl"));
    let missing = Weights::read(Path::new("no/such/file.npz"), None).unwrap_err();
    assert!(matches!(missing, ModelError::Io { .. }));
    assert!(missing.to_string().contains("no/such/file.npz"), "{missing}");
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(Weights::read(directory.path(), None), Err(ModelError::Io { .. })));
}

#[test]
fn bad_safetensors_headers_are_refused() {
    let file = |length: u64, json: &str, data: usize| {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(json.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    };
    let whole = |json: &str, data| file(json.len() as u64, json, data);
    for (bytes, reason) in [
        (file(u64::MAX, "{}", 0), "header of 18446744073709551615 bytes"),
        (file(9_999_999, "{}", 0), "truncated: header of 9999999 bytes"),
        (whole("{not json}", 0), "bad header"),
        (whole(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 4), "truncated: 4"),
        (whole(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 9), "1 bytes follow"),
        (whole(r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, 8), "bad header"),
        (
            whole(
                r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}}"#,
                8,
            ),
            "bad header",
        ),
        (whole(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, 8), "bad header"),
        (whole("{}", 0), "holds no tensors"),
    ] {
        let message = refused("w.safetensors", &bytes);
        assert!(message.contains(reason), "{message}, expected {reason}");
    }
}

#[test]
fn bad_metadata_of_ours_is_refused() {
    let bytes_with = |json: &str| {
        let tensors = tiny_tensors();
        let bytes: Vec<(&String, &[usize], Vec<u8>)> = tensors
            .iter()
            .map(|(name, t)| {
                (name, t.shape.as_slice(), t.data.iter().flat_map(|v| f32_bytes(*v)).collect())
            })
            .collect();
        let views = bytes.iter().map(|(name, shape, bytes)| {
            (name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap())
        });
        let metadata = HashMap::from([("mixer".to_owned(), json.to_owned())]);
        safetensors::serialize(views, Some(metadata)).unwrap()
    };
    let config = serde_json::to_string(&tiny()).unwrap();
    let good = format!(r#"{{"format_version":1,"config":{config}}}"#);
    assert_eq!(read_bytes("w", &bytes_with(&good)).unwrap(), tiny_weights());
    for (json, reason) in [
        ("nonsense".to_owned(), "bad `mixer` metadata"),
        (good.replace(":1,", ":2,"), "format version 2, expected at most 1"),
        (good.replace(r#""gelu":"tanh""#, r#""gelu":"relu""#), "unknown variant `relu`"),
        (good.replace(r#""patch_size":4"#, r#""patch_size":5"#), "not divisible by the patch size"),
        (good.replace(r#""num_blocks":2"#, r#""num_blocks":99999999999"#), "`num_blocks` is"),
        (good.replace(r#""image_size":24"#, r#""image_size":4000000000"#), "`image_size` is"),
        (good.replace('}', r#","x":1}"#), "bad `mixer` metadata"),
        (
            good.replace(r#""config""#, r#""classes":["cat"],"config""#),
            "1 class names for a head of 7 classes",
        ),
    ] {
        let message = refused("w.safetensors", &bytes_with(&json));
        assert!(message.contains(reason), "{message}, expected {reason}");
    }
    let other = good.replace(r#""num_classes":7"#, r#""num_classes":8"#);
    let error = read_bytes("w", &bytes_with(&other)).unwrap_err().to_string();
    assert!(error.contains("head.bias is [7], expected [8]"), "{error}");
}

#[test]
fn bad_arrays_in_an_npz_are_refused() {
    let one = |name: &str, bytes: Vec<u8>| {
        zip(&[(format!("{name}.npy"), bytes)], CompressionMethod::Deflated)
    };
    let huge = npy_of("<f4", false, &[1 << 40, 1 << 40], &[0; 4]);
    for (bytes, reason) in [
        (one("arr_0", npy_of("|O", false, &[], b"\x80\x02.")), "`arr_0`: holds pickled Python"),
        (one("a", npy_of("|V2", false, &[2], &[0; 4])), "probably bfloat16"),
        (one("a", huge), "overflows"),
        (one("a", npy_of("<f4", false, &[1 << 40], &[0; 4])), "needs 4398046511104 bytes"),
        (one("a", npy_of("<f4", false, &[2], &[0; 4])), "needs 8 bytes, the member holds 4"),
        (one("a", npy_of("<f4", false, &[1], &[0; 8])), "needs 4 bytes, the member holds 8"),
        (one("a", b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec()), "header of 4294967295 bytes"),
        (one("a", b"\x93NUMPY\x09\x00".to_vec()), "version 9"),
        (one("a", b"hello, world".to_vec()), "is no .npy array"),
        (one("a", b"\x93NU".to_vec()), "unreadable header"),
        (one("a", npy("{'descr': [('x', '<f4')], }", &[])), "structured"),
    ] {
        let message = refused("w.npz", &bytes);
        assert!(message.contains(reason), "{message}, expected {reason}");
    }
    // An integer array where a weight should be.
    let mut members = npz_of(&tiny_tensors(), "<f4", false, f32_bytes);
    for (name, bytes) in &mut members {
        if name == "head/bias.npy" {
            *bytes = npy_of("<i4", false, &[7], &[0; 28]);
        }
    }
    let message = refused("w.npz", &zip(&members, CompressionMethod::Stored));
    assert!(message.contains("`head/bias`: is `<i4`, expected f16, f32 or f64"), "{message}");
}

#[test]
fn a_damaged_array_fails_its_checksum() {
    let members = npz_of(&tiny_tensors(), "<f4", false, f32_bytes);
    let mut bytes = zip(&members, CompressionMethod::Stored);
    let first = tiny_tensors()["blocks.0.mlp_channels.fc1.bias"].data[3].to_le_bytes();
    let at = bytes.windows(4).position(|window| window == first).unwrap();
    bytes[at] ^= 1;
    assert!(refused("w.npz", &bytes).contains("checksum"), "{}", refused("w.npz", &bytes));
}

#[test]
fn nets_that_are_no_mixer_are_named_on_one_line() {
    let net = |names: &[(&str, &[usize])]| {
        let tensors = names
            .iter()
            .map(|(name, shape)| ((*name).to_owned(), HostTensor::filled(shape, 0.0)))
            .collect();
        safetensors_of(&tensors, Dtype::F32, f32_bytes)
    };
    let message = refused("w", &net(&[("a\nb", &[2]), ("b", &[1]), ("c", &[1]), ("d", &[1])]));
    assert_eq!(
        message,
        "not the weights of an MLP-Mixer, a ViT or a BiT: no `stem.proj.weight` with `blocks.*.mlp_tokens` \
         among 4 tensors (a b, b, c, ...)"
    );
    assert!(
        refused("w", &net(&[("pos_embed", &[1, 5, 4])]))
            .contains("no `patch_embed.proj.weight` with `pos_embed`")
    );
    let without_head: BTreeMap<String, HostTensor> =
        tiny_tensors().into_iter().filter(|(name, _)| !name.starts_with("head")).collect();
    let bytes = safetensors_of(&without_head, Dtype::F32, f32_bytes);
    assert!(refused("w", &bytes).contains("no `head.weight`"));
    let mut odd = tiny_tensors();
    for i in 0..2 {
        for (name, shape) in
            [("fc1.weight", vec![14, 35]), ("fc2.weight", vec![35, 14]), ("fc2.bias", vec![35])]
        {
            let name = format!("blocks.{i}.mlp_tokens.{name}");
            odd.insert(name, HostTensor::filled(&shape, 0.0));
        }
    }
    let bytes = safetensors_of(&odd, Dtype::F32, f32_bytes);
    assert!(refused("w", &bytes).contains("35 tokens do not form a square grid"));
}

#[test]
fn all_differences_of_a_nearly_complete_mixer_are_listed() {
    let mut tensors = tiny_tensors();
    tensors.remove("blocks.1.norm1.weight");
    tensors.insert("foo.bar".to_owned(), HostTensor::filled(&[3], 0.0));
    tensors.insert("blocks.0.mlp_tokens.fc1.weight".to_owned(), HostTensor::filled(&[14, 30], 0.0));
    let (_dir, path) = file("w", &safetensors_of(&tensors, Dtype::F32, f32_bytes));
    let message = Weights::read(&path, None).unwrap_err().to_string();
    assert_eq!(
        message,
        format!(
            "incomplete weights of Mixer(P=4, C=10, L=2, D_S=14, D_C=22) at 24 px, 7 classes: {}\n  \
             blocks.0.mlp_tokens.fc1.weight is [14, 30], expected [14, 36]\n  \
             missing blocks.1.norm1.weight [10]\n  \
             unexpected foo.bar [3]",
            path.display()
        )
    );
}

#[test]
fn the_same_tensor_under_two_names_is_refused() {
    let mut members = npz_of(&tiny_tensors(), "<f4", false, f32_bytes);
    members.push(("embedding/bias.npy".to_owned(), npy_of("<f4", false, &[10], &[0; 40])));
    let message = refused("w.npz", &zip(&members, CompressionMethod::Stored));
    assert!(message.contains("`stem.proj.bias` is there twice"), "{message}");
}

/// The three formats, as files that are read.
fn good_files() -> Vec<(&'static str, Vec<u8>)> {
    let members = npz_of(&tiny_tensors(), "<f4", false, f32_bytes);
    vec![
        ("w.npz", zip(&members, CompressionMethod::Deflated)),
        ("w.safetensors", tiny_weights().to_safetensors_bytes().unwrap()),
        ("w.pth", std::fs::read(fixture("timm_tiny.pth")).unwrap()),
    ]
}

#[test]
fn truncated_files_are_refused_wherever_they_end() {
    for (name, bytes) in good_files() {
        read_bytes(name, &bytes).unwrap();
        for end in (0..bytes.len()).step_by(61).chain(bytes.len().saturating_sub(30)..bytes.len()) {
            refused(name, &bytes[..end]);
        }
    }
}

#[test]
fn files_with_a_flipped_byte_never_panic() {
    for (name, bytes) in good_files() {
        // Headers, directory and pickle lie at the ends; the middle is mostly numbers.
        let ends = (0..bytes.len().min(3000)).chain(bytes.len().saturating_sub(3000)..bytes.len());
        for (i, at) in ends.step_by(7).enumerate() {
            let mut damaged = bytes.clone();
            damaged[at] ^= [0x01, 0x80, 0xff, 0x20][i % 4];
            if let Err(error) = read_bytes(name, &damaged) {
                assert!(!error.to_string().is_empty());
            }
        }
    }
}
