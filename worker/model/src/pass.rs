//! A training pass through a tower, cut out of the graph at both ends, with its layers' graphs kept or
//! computed again on the way back.
//!
//! Forward, the layers run in segments: all of them in one, or one each where they are recomputed. Of every
//! segment but the last only the input is kept. Backward, a segment runs again with its graph, is
//! differentiated and forgotten, so the graph of one layer exists at a time. The arithmetic is the same either
//! way, and so are the gradients.

use std::ops::Range;

use tch::{Kind, Tensor};

/// Runs some of a tower's layers, with what comes before the first and after the last of them.
type Run<'a> = Box<dyn FnMut(Range<usize>, &Tensor) -> Tensor + 'a>;

/// A tower's output, and the way back from it.
///
/// Use [`Self::output`] as an ordinary tensor, let losses go backward into it, and then call
/// [`Self::backward`] once.
pub struct Pass<'a> {
    source: Tensor,
    segments: Vec<(Range<usize>, Tensor)>,
    run: Run<'a>,
    last: Tensor,
    output: Tensor,
}

impl<'a> Pass<'a> {
    /// Runs `layers` layers on `source`. `run` must compute the same each time it is asked.
    pub(crate) fn forward(
        source: &Tensor,
        layers: usize,
        recompute: bool,
        run: impl FnMut(Range<usize>, &Tensor) -> Tensor + 'a,
    ) -> Self {
        let mut run: Run<'a> = Box::new(run);
        let each = if recompute { 1 } else { layers.max(1) };
        let mut input = source.detach().set_requires_grad(source.requires_grad());
        let mut segments = Vec::new();
        let mut from = 0;
        while from + each < layers {
            let range = from..from + each;
            let next = tch::no_grad(|| run(range.clone(), &input)).set_requires_grad(true);
            segments.push((range, input));
            input = next;
            from += each;
        }
        // The backward pass starts with this one: dropping its graph now would only mean making it again.
        let last = run(from..layers, &input);
        segments.push((from..layers, input));
        let output = last.detach().set_requires_grad(true);
        Self { source: source.shallow_clone(), segments, run, last, output }
    }

    /// The tower's output: a leaf that collects the gradient of what is computed from it.
    pub fn output(&self) -> &Tensor {
        &self.output
    }

    /// Takes the gradient that lies on the output to the tower's parameters and into the graph of the source.
    pub fn backward(mut self) {
        let mut gradient = self.output.grad();
        let mut last = Some(self.last);
        while let Some((range, input)) = self.segments.pop() {
            let output = last.take().unwrap_or_else(|| (self.run)(range, &input));
            push_back(&output, &gradient);
            drop(output);
            gradient = input.grad();
        }
        push_back(&self.source, &gradient);
    }
}

/// Back-propagates `gradient`, that of some loss with respect to `output`. The sum's derivative is 1 for every
/// product, so what arrives at `output` is `gradient` itself, bit for bit.
fn push_back(output: &Tensor, gradient: &Tensor) {
    if output.requires_grad() && gradient.defined() {
        (output * gradient).sum(Kind::Float).backward();
    }
}
