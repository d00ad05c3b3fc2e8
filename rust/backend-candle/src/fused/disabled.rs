//! Kernels of our own in a build without the feature `flash-attn`: none, so that the plain way is taken.

use alloyforge_types::{Activation, DrawnToken, LayerSpec, ModelSpec, MoeSpec, Result, TokenDraw};
use candle_core::{DType, Tensor};

use super::{AddNorm, Attend, Plan, Vectors, Words};
use crate::fault::Place;

/// As in a build with them: a device that runs them. Here there is none.
#[derive(Debug)]
pub(crate) enum Fused {}

impl Fused {
    pub(crate) fn new(_place: &Place, _spec: &ModelSpec, _cached: DType) -> Result<Option<Self>> {
        Ok(None)
    }

    pub(crate) fn attends(&self, _layer: &LayerSpec) -> bool {
        match *self {}
    }

    pub(crate) fn add_norm(&self, _x: &AddNorm<'_>) -> candle_core::Result<Option<Tensor>> {
        match *self {}
    }

    pub(crate) fn vectors(&self, _x: &Vectors<'_>) -> candle_core::Result<Tensor> {
        match *self {}
    }

    pub(crate) fn attend(
        &self,
        _x: &Attend<'_>,
        _plan: &Plan,
        _words: &Words,
    ) -> candle_core::Result<Tensor> {
        match *self {}
    }

    pub(crate) fn gated(
        &self,
        _kind: Activation,
        _gate: &Tensor,
        _up: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        match *self {}
    }

    pub(crate) fn product(
        &self,
        _x: &Tensor,
        _w: &Tensor,
        _out: DType,
    ) -> candle_core::Result<Option<Tensor>> {
        match *self {}
    }

    pub(crate) fn stack_product(
        &self,
        _x: &Tensor,
        _w: &Tensor,
        _ids: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        match *self {}
    }

    pub(crate) fn route(
        &self,
        _logits: &Tensor,
        _spec: &MoeSpec,
    ) -> candle_core::Result<Option<(Tensor, Tensor)>> {
        match *self {}
    }

    pub(crate) fn rows(
        &self,
        _table: &Tensor,
        _ids: &Tensor,
        _scale: f32,
    ) -> candle_core::Result<Option<Tensor>> {
        match *self {}
    }

    pub(crate) fn draw(
        &self,
        _logits: &Tensor,
        _draws: &[TokenDraw],
    ) -> candle_core::Result<Vec<DrawnToken>> {
        match *self {}
    }
}
