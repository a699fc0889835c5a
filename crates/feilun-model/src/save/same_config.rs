//! Whether a configuration that was written is read again as it was.

use super::error::SaveError;
use crate::config::ModelConfig;

/// The first difference between what is and what a reader will take it for.
///
/// `found` of the error is the model's, `expected` what the format makes of it.
pub(super) fn same_config(
    format: &'static str,
    config: &ModelConfig,
    read: &ModelConfig,
) -> Result<(), SaveError> {
    let difference = |what: &str, expected: String, found: String| match expected == found {
        true => Ok(()),
        false => Err(SaveError::NotExpressible {
            format,
            what: what.to_owned(),
            found: expected,
            expected: found,
        }),
    };
    macro_rules! same {
        ($($field:ident),*) => {$(
            difference(
                stringify!($field),
                format!("{:?}", config.$field),
                format!("{:?}", read.$field),
            )?;
        )*};
    }
    same!(
        hidden_size,
        intermediate_size,
        num_heads,
        num_kv_heads,
        head_dim,
        vocab_size,
        context_length,
        norm_eps,
        activation,
        qk_norm,
        qkv_bias,
        output_bias,
        mlp_bias,
        post_norms,
        embedding_scale,
        attention_scale,
        logit_softcap,
        tied_embeddings
    );
    for (layer, (expected, found)) in config.layers.iter().zip(&read.layers).enumerate() {
        let what = format!("layer {layer}");
        difference(&what, format!("{expected:?}"), format!("{found:?}"))?;
    }
    Ok(())
}
