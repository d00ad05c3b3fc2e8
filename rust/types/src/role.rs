//! What a weight is for, apart from what its file calls it.

/// A weight of the model by its role in the decoder.
///
/// Shapes below are `[rows, cols]`; a vector is `[1, cols]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Token embeddings, `[vocab, hidden]`.
    Embedding,
    /// Learned positions, `[positions, hidden]`.
    Positions,
    /// The norm before the head, `[1, hidden]`.
    FinalNorm,
    /// Its bias, `[1, hidden]`.
    FinalNormBias,
    /// The output head, `[vocab, hidden]`; the embeddings where they are tied.
    Head,
    /// The output head's bias, `[1, vocab]`.
    HeadBias,
    /// A weight of layer `.0`.
    Layer(usize, LayerRole),
}

/// A weight of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerRole {
    /// The norm before attention, `[1, hidden]`.
    AttnNorm,
    /// Its bias, `[1, hidden]`.
    AttnNormBias,
    /// The norm after attention, before or behind the residual sum, `[1, hidden]`.
    AttnPostNorm,
    /// Its bias, `[1, hidden]`.
    AttnPostNormBias,
    /// Queries, `[heads * head_dim, hidden]`.
    Q,
    /// Keys, `[kv_heads * head_dim, hidden]`.
    K,
    /// Values, `[kv_heads * head_dim, hidden]`.
    V,
    /// The attention output, `[hidden, heads * head_dim]`.
    O,
    /// The queries' bias.
    QBias,
    /// The keys' bias.
    KBias,
    /// The values' bias.
    VBias,
    /// The attention output's bias.
    OBias,
    /// The queries' norm: `[1, head_dim]` per head or `[1, heads * head_dim]` over the full width.
    QNorm,
    /// The keys' norm, likewise.
    KNorm,
    /// One attention sink logit a head, `[1, heads]`.
    Sinks,
    /// The norm before attention over an encoder's states, `[1, hidden]`.
    CrossNorm,
    /// Its bias, `[1, hidden]`.
    CrossNormBias,
    /// Queries of that attention, `[heads * head_dim, hidden]`.
    CrossQ,
    /// Keys of the states, `[heads * head_dim, hidden]`.
    CrossK,
    /// Values of the states, `[heads * head_dim, hidden]`.
    CrossV,
    /// That attention's output, `[hidden, heads * head_dim]`.
    CrossO,
    /// The queries' bias.
    CrossQBias,
    /// The keys' bias.
    CrossKBias,
    /// The values' bias.
    CrossVBias,
    /// The output's bias.
    CrossOBias,
    /// The norm before the MLP, `[1, hidden]`.
    MlpNorm,
    /// Its bias, `[1, hidden]`.
    MlpNormBias,
    /// The norm after the MLP, before or behind the residual sum, `[1, hidden]`.
    MlpPostNorm,
    /// Its bias, `[1, hidden]`.
    MlpPostNormBias,
    /// A dense MLP's gate, `[ff, hidden]`.
    Gate,
    /// A dense or plain MLP's up projection, `[ff, hidden]`.
    Up,
    /// A dense or plain MLP's down projection, `[hidden, ff]`.
    Down,
    /// A dense MLP's gate's bias, `[1, ff]`.
    GateBias,
    /// A dense or plain MLP's up projection's bias, `[1, ff]`.
    UpBias,
    /// A dense or plain MLP's down projection's bias, `[1, hidden]`.
    DownBias,
    /// The router of a mixture of experts, `[experts, hidden]`.
    Router,
    /// The router's bias, added to its logits, `[1, experts]`.
    RouterBias,
    /// A weight of expert `.0`.
    Expert(usize, ExpertRole),
}

/// A weight of one expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExpertRole {
    /// The gate, `[ff, hidden]`.
    Gate,
    /// The up projection, `[ff, hidden]`.
    Up,
    /// The down projection, `[hidden, ff]`.
    Down,
    /// The gate's bias, `[1, ff]`.
    GateBias,
    /// The up projection's bias, `[1, ff]`.
    UpBias,
    /// The down projection's bias, `[1, hidden]`.
    DownBias,
}
