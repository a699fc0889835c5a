//! One flat vector as a safetensors file. Written and read a piece at a time, since a second copy
//! of a model would not fit.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use feilun_model::train::ParameterInfo;

use super::CheckpointError;

#[cfg(target_endian = "big")]
compile_error!("checkpoints are little-endian files of values as they lie in memory");

/// Bytes per value.
const VALUE_BYTES: usize = size_of::<f32>();
/// Values written at once: 1 MiB.
const PIECE: usize = 1 << 18;
/// Data begin at a multiple of this, as the format recommends.
const ALIGNMENT: usize = 8;

/// The bytes before the data: length of the header, header. They follow from the parameters
/// alone, so a file is read only when it begins with exactly these.
pub(super) fn header(parameters: &[ParameterInfo]) -> Vec<u8> {
    let mut entries = serde_json::Map::new();
    for info in parameters {
        let offsets = [info.range.start * VALUE_BYTES, info.range.end * VALUE_BYTES];
        let entry = serde_json::json!({
            "dtype": "F32",
            "shape": info.shape,
            "data_offsets": offsets,
        });
        entries.insert(info.name.clone(), entry);
    }
    let mut json = serde_json::Value::Object(entries).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(ALIGNMENT), b' ');
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json);
    bytes
}

/// Bytes of the whole file.
pub(super) fn file_bytes(header: &[u8], values: &[f32]) -> u64 {
    (header.len() + size_of_val(values)) as u64
}

pub(super) fn write(writer: &mut dyn Write, header: &[u8], values: &[f32]) -> io::Result<()> {
    writer.write_all(header)?;
    // In pieces, so that each is still in the cache when it is digested.
    values.chunks(PIECE).try_for_each(|piece| writer.write_all(bytemuck::cast_slice(piece)))
}

/// Reads the values of a file that was verified before.
pub(super) fn read(
    path: &Path,
    parameters: &[ParameterInfo],
    values: &mut [f32],
) -> Result<(), CheckpointError> {
    let load = |source| CheckpointError::Load { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(load)?;
    let expected = header(parameters);
    let len = file.metadata().map_err(load)?.len();
    if len != file_bytes(&expected, values) {
        return Err(CheckpointError::OtherTensors { path: path.to_owned() });
    }
    let mut found = vec![0; expected.len()];
    file.read_exact(&mut found).map_err(load)?;
    if found != expected {
        return Err(CheckpointError::OtherTensors { path: path.to_owned() });
    }
    file.read_exact(bytemuck::cast_slice_mut(values)).map_err(load)
}

#[cfg(test)]
mod tests {
    use feilun_model::train::ParameterKind;
    use safetensors::SafeTensors;

    use super::*;

    fn parameters() -> Vec<ParameterInfo> {
        let info = |name: &str, shape: &[usize], range, kind| ParameterInfo {
            name: name.into(),
            shape: shape.into(),
            kind,
            range,
        };
        vec![
            info("z.weight", &[2, 3], 0..6, ParameterKind::Matrix),
            info("a.\"odd\".norm", &[4], 6..10, ParameterKind::Vector),
        ]
    }

    #[test]
    fn the_safetensors_crate_reads_the_file() {
        let values: Vec<f32> = (0..10).map(|i| i as f32 - 4.5).collect();
        let mut bytes = Vec::new();
        write(&mut bytes, &header(&parameters()), &values).unwrap();
        assert_eq!(bytes.len() as u64, file_bytes(&header(&parameters()), &values));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = file.tensor("z.weight").unwrap();
        assert_eq!(tensor.shape(), [2, 3]);
        assert_eq!(tensor.data(), bytemuck::cast_slice::<f32, u8>(&values[..6]));
        let tensor = file.tensor("a.\"odd\".norm").unwrap();
        assert_eq!(tensor.data(), bytemuck::cast_slice::<f32, u8>(&values[6..]));
    }

    #[test]
    fn other_parameters_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("values.safetensors");
        let mut file = File::create(&path).unwrap();
        write(&mut file, &header(&parameters()), &[1.0; 10]).unwrap();
        let mut values = [0.0; 10];
        read(&path, &parameters(), &mut values).unwrap();
        assert_eq!(values, [1.0; 10]);
        let mut other = parameters();
        other[0].shape = vec![3, 2];
        let error = read(&path, &other, &mut values).unwrap_err();
        assert!(matches!(error, CheckpointError::OtherTensors { .. }), "{error}");
        let error = read(&path, &parameters()[..1], &mut values[..6]).unwrap_err();
        assert!(matches!(error, CheckpointError::OtherTensors { .. }), "{error}");
    }
}
