//! Writers of small model files for the tests. The GGUF writer remembers where each number lies,
//! so that hostile tests can replace it.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::path::Path;

/// A number in a written file.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) at: usize,
    pub(crate) bytes: usize,
    pub(crate) what: &'static str,
}

/// A GGUF file in the making.
#[derive(Clone, Debug)]
pub(crate) struct GgufWriter {
    pub(crate) version: u32,
    pub(crate) keys: Vec<(String, Value)>,
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) alignment: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    U8(u8),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
    U8s(Vec<u8>),
    Bools(Vec<bool>),
}

#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dims: Vec<u64>,
    pub(crate) type_id: u32,
    pub(crate) data: Vec<u8>,
}

/// `(type id, weights in a block, bytes of a block)`.
pub(crate) const F32: (u32, usize, usize) = (0, 1, 4);
pub(crate) const F16: (u32, usize, usize) = (1, 1, 2);
pub(crate) const Q4_0: (u32, usize, usize) = (2, 32, 18);
pub(crate) const Q8_0: (u32, usize, usize) = (8, 32, 34);

impl GgufWriter {
    pub(crate) fn new() -> GgufWriter {
        GgufWriter { version: 3, keys: Vec::new(), tensors: Vec::new(), alignment: 32 }
    }

    /// Sets a key, replacing an earlier value.
    pub(crate) fn key(&mut self, key: &str, value: Value) -> &mut GgufWriter {
        self.keys.retain(|(old, _)| old != key);
        self.keys.push((key.into(), value));
        self
    }

    pub(crate) fn without_key(&mut self, key: &str) -> &mut GgufWriter {
        self.keys.retain(|(old, _)| old != key);
        self
    }

    /// Adds a tensor of small arbitrary bytes.
    pub(crate) fn tensor(
        &mut self,
        name: &str,
        dims: &[u64],
        (type_id, block_len, block_bytes): (u32, usize, usize),
    ) -> &mut GgufWriter {
        let weights: u64 = dims.iter().product();
        let len = weights as usize / block_len * block_bytes;
        let data = (0..len).map(|index| (index % 5) as u8).collect();
        self.tensors.push(Tensor { name: name.into(), dims: dims.into(), type_id, data });
        self
    }

    pub(crate) fn without_tensor(&mut self, name: &str) -> &mut GgufWriter {
        self.tensors.retain(|tensor| tensor.name != name);
        self
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        self.build_with_fields().0
    }

    pub(crate) fn build_with_fields(&self) -> (Vec<u8>, Vec<Field>) {
        let mut out = Out { bytes: b"GGUF".to_vec(), fields: Vec::new() };
        out.u32(self.version, "version");
        out.u64(self.tensors.len() as u64, "number of tensors");
        out.u64(self.keys.len() as u64, "number of keys");
        for (key, value) in &self.keys {
            out.text(key, "length of key");
            out.value(value);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            out.text(&tensor.name, "length of tensor name");
            out.u32(tensor.dims.len() as u32, "number of dimensions");
            for &dim in &tensor.dims {
                out.u64(dim, "dimension");
            }
            out.u32(tensor.type_id, "tensor type");
            out.u64(offset as u64, "tensor offset");
            offset = (offset + tensor.data.len()).next_multiple_of(self.alignment);
        }
        for tensor in &self.tensors {
            let padded = out.bytes.len().next_multiple_of(self.alignment);
            out.bytes.resize(padded, 0);
            out.bytes.extend_from_slice(&tensor.data);
        }
        (out.bytes, out.fields)
    }
}

struct Out {
    bytes: Vec<u8>,
    fields: Vec<Field>,
}

impl Out {
    fn u32(&mut self, number: u32, what: &'static str) {
        self.fields.push(Field { at: self.bytes.len(), bytes: 4, what });
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    fn u64(&mut self, number: u64, what: &'static str) {
        self.fields.push(Field { at: self.bytes.len(), bytes: 8, what });
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    fn text(&mut self, text: &str, what: &'static str) {
        self.u64(text.len() as u64, what);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::U8(number) => self.scalar(0, &[*number]),
            Value::U32(number) => self.scalar(4, &number.to_le_bytes()),
            Value::I32(number) => self.scalar(5, &number.to_le_bytes()),
            Value::F32(number) => self.scalar(6, &number.to_le_bytes()),
            Value::Bool(truth) => self.scalar(7, &[u8::from(*truth)]),
            Value::Text(text) => {
                self.u32(8, "value type");
                self.text(text, "length of string");
            }
            Value::Texts(texts) => {
                self.array(8, texts.len());
                for text in texts {
                    self.text(text, "length of string");
                }
            }
            Value::U8s(numbers) => {
                self.array(0, numbers.len());
                self.bytes.extend_from_slice(numbers);
            }
            Value::I32s(numbers) => {
                self.array(5, numbers.len());
                self.bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            }
            Value::F32s(numbers) => {
                self.array(6, numbers.len());
                self.bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            }
            Value::Bools(truths) => {
                self.array(7, truths.len());
                self.bytes.extend(truths.iter().map(|&truth| u8::from(truth)));
            }
        }
    }

    fn scalar(&mut self, type_id: u32, bytes: &[u8]) {
        self.u32(type_id, "value type");
        self.bytes.extend_from_slice(bytes);
    }

    fn array(&mut self, element: u32, len: usize) {
        self.u32(9, "value type");
        self.u32(element, "element type");
        self.u64(len as u64, "length of array");
    }
}

/// A complete model of one architecture in GGUF, about 10 KB: 2 layers of width 32, 2 heads of
/// 16, 1 key/value head, 5 tokens.
pub(crate) fn tiny_gguf(architecture: &str) -> GgufWriter {
    let mut file = GgufWriter::new();
    file.key("general.architecture", Value::Text(architecture.into()));
    for (name, number) in [
        ("block_count", 2),
        ("context_length", 64),
        ("embedding_length", 32),
        ("feed_forward_length", 64),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
        ("attention.key_length", 16),
        ("attention.value_length", 16),
    ] {
        file.key(&format!("{architecture}.{name}"), Value::U32(number));
    }
    let epsilon = format!("{architecture}.attention.layer_norm_rms_epsilon");
    file.key(&epsilon, Value::F32(1e-6));
    file.key("tokenizer.ggml.model", Value::Text("llama".into()));
    let tokens = ["<unk>", "<s>", "</s>", "a", "猫"];
    file.key("tokenizer.ggml.tokens", Value::Texts(tokens.map(String::from).to_vec()));
    file.key("tokenizer.ggml.scores", Value::F32s(vec![0.0, 0.0, 0.0, -1.0, -2.0]));
    file.key("tokenizer.ggml.token_type", Value::I32s(vec![2, 3, 3, 1, 1]));
    file.key("tokenizer.ggml.bos_token_id", Value::U32(1));
    file.key("tokenizer.ggml.eos_token_id", Value::U32(2));
    file.tensor("token_embd.weight", &[32, 5], Q8_0);
    for layer in 0..2 {
        let name = |tensor: &str| format!("blk.{layer}.{tensor}");
        file.tensor(&name("attn_norm.weight"), &[32], F32);
        file.tensor(&name("attn_q.weight"), &[32, 32], Q4_0);
        file.tensor(&name("attn_k.weight"), &[32, 16], Q4_0);
        file.tensor(&name("attn_v.weight"), &[32, 16], Q4_0);
        file.tensor(&name("attn_output.weight"), &[32, 32], Q4_0);
        file.tensor(&name("ffn_norm.weight"), &[32], F32);
        file.tensor(&name("ffn_gate.weight"), &[32, 64], Q4_0);
        file.tensor(&name("ffn_up.weight"), &[32, 64], Q4_0);
        file.tensor(&name("ffn_down.weight"), &[64, 32], Q4_0);
        if architecture == "qwen2" {
            file.tensor(&name("attn_q.bias"), &[32], F32);
            file.tensor(&name("attn_k.bias"), &[16], F32);
            file.tensor(&name("attn_v.bias"), &[16], F32);
        }
        if matches!(architecture, "qwen3" | "gemma3") {
            file.tensor(&name("attn_q_norm.weight"), &[16], F32);
            file.tensor(&name("attn_k_norm.weight"), &[16], F32);
        }
        if architecture == "gemma3" {
            file.tensor(&name("post_attention_norm.weight"), &[32], F32);
            file.tensor(&name("post_ffw_norm.weight"), &[32], F32);
        }
    }
    file.tensor("output_norm.weight", &[32], F32);
    file
}

/// Tensors of a safetensors file: name → shape; all BF16 zeros.
pub(crate) type Shapes = BTreeMap<String, Vec<usize>>;

/// The tensors of a model with the same sizes as [`tiny_gguf`], by Hugging Face names.
pub(crate) fn tiny_shapes(model_type: &str) -> Shapes {
    let mut shapes = Shapes::new();
    let mut add = |name: String, shape: &[usize]| {
        shapes.insert(format!("model.{name}"), shape.to_vec());
    };
    add("embed_tokens.weight".into(), &[5, 32]);
    add("norm.weight".into(), &[32]);
    for layer in 0..2 {
        let mut add = |name: &str, shape: &[usize]| add(format!("layers.{layer}.{name}"), shape);
        add("input_layernorm.weight", &[32]);
        add("post_attention_layernorm.weight", &[32]);
        add("self_attn.q_proj.weight", &[32, 32]);
        add("self_attn.k_proj.weight", &[16, 32]);
        add("self_attn.v_proj.weight", &[16, 32]);
        add("self_attn.o_proj.weight", &[32, 32]);
        add("mlp.gate_proj.weight", &[64, 32]);
        add("mlp.up_proj.weight", &[64, 32]);
        add("mlp.down_proj.weight", &[32, 64]);
        if model_type == "qwen2" {
            add("self_attn.q_proj.bias", &[32]);
            add("self_attn.k_proj.bias", &[16]);
            add("self_attn.v_proj.bias", &[16]);
        }
        if matches!(model_type, "qwen3" | "gemma3_text") {
            add("self_attn.q_norm.weight", &[16]);
            add("self_attn.k_norm.weight", &[16]);
        }
        if model_type == "gemma3_text" {
            add("pre_feedforward_layernorm.weight", &[32]);
            add("post_feedforward_layernorm.weight", &[32]);
        }
    }
    shapes
}

/// Writes BF16 zeros with the `safetensors` crate.
pub(crate) fn safetensors_bytes(shapes: &Shapes) -> Vec<u8> {
    let sizes: Vec<_> = shapes
        .iter()
        .map(|(name, shape)| (name, shape, vec![0_u8; 2 * shape.iter().product::<usize>()]))
        .collect();
    let views = sizes.iter().map(|(name, shape, data)| {
        let dtype = safetensors::Dtype::BF16;
        let view = safetensors::tensor::TensorView::new(dtype, (*shape).clone(), data).unwrap();
        ((*name).clone(), view)
    });
    safetensors::serialize(views, None).unwrap()
}

/// A `config.json` with the sizes of [`tiny_gguf`]; keys of `changes` replace or, if null, set null.
pub(crate) fn tiny_config(model_type: &str, changes: serde_json::Value) -> serde_json::Value {
    let class = match model_type {
        "llama" => "LlamaForCausalLM",
        "mistral" => "MistralForCausalLM",
        "qwen2" => "Qwen2ForCausalLM",
        "qwen3" => "Qwen3ForCausalLM",
        "gemma3_text" => "Gemma3ForCausalLM",
        other => panic!("no tiny {other}"),
    };
    let activation = if model_type == "gemma3_text" { "hidden_activation" } else { "hidden_act" };
    let function = if model_type == "gemma3_text" { "gelu_pytorch_tanh" } else { "silu" };
    let mut config = serde_json::json!({
        "architectures": [class],
        "model_type": model_type,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "vocab_size": 5,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": true,
        "bos_token_id": 1,
        "eos_token_id": 2,
    });
    config[activation] = function.into();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

/// Writes a whole folder.
pub(crate) fn write_tiny_folder(folder: &Path, model_type: &str, changes: serde_json::Value) {
    let config = tiny_config(model_type, changes).to_string();
    std::fs::write(folder.join("config.json"), config).unwrap();
    let weights = safetensors_bytes(&tiny_shapes(model_type));
    std::fs::write(folder.join("model.safetensors"), weights).unwrap();
}
