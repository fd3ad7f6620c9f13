//! A [`Case`] is a small program with the content of its tensors. [`check_ops`] compares
//! backends with the f64 reference; [`Case::check_grad`] compares an analytic gradient with
//! central differences, both in f64.
//!
//! Contents are random numbers that f32 holds exactly, so that all backends begin with the
//! same numbers. Tensors that are to be written whole begin as NaN, so that an element
//! which a backend does not write shows.

use std::collections::BTreeSet;

use alpha_tensor::{
    Backend, Op, Program, ProgramBuilder, Region, RegionSizes, RunArgs, Tensor,
    cpu_ref::RefBackend,
    op::Access,
    rng::{Key, Purpose},
    tensor::ALIGN_ELEMENTS,
};

use helios::Format16;

use crate::{
    backends::{NamedBackend, backends, runs},
    sixteen::{rounded, unit_roundoff, wide_operands},
};

/// Allowed error of a result relative to the largest magnitude in its tensor, for sums of
/// `reduction` terms: about sixteen roundings, and the random walk of the sum's own.
fn f32_tolerance(reduction: usize) -> f64 {
    16.0 * f64::from(f32::EPSILON) * (1.0 + (reduction as f64).sqrt())
}

/// Allowed relative error of a gradient in f64.
const GRAD_F64: f64 = 1e-6;
/// Gradients are compared relative to at least this share of the largest in their tensor:
/// below it the finite difference itself is rounding noise.
const GRAD_FLOOR: f64 = 1e-4;
/// Step of the central differences; their error is of fourth order in it.
const GRAD_STEP: f64 = 1e-3;

/// Roundings to 16 bits that may add up in one result: an operand's, an intermediate result's, and its own.
const SIXTEEN_ROUNDINGS: f64 = 6.0;

/// A broken kernel fails in hundreds of cases; only the first are shown.
const SHOWN_MISMATCHES: usize = 30;

/// The run arguments of every case: no number is 0 or 1, so that none passes for another.
pub(crate) const ARGS: RunArgs =
    RunArgs { seed: 5, step: 3, micro_step: 2, update: 4, lr: 0.01, position: 0, is_chained: false, loss_scale: 8.0 };

/// A program under construction, with the content of its tensors.
pub(crate) struct Case {
    name: String,
    reduction: usize,
    builder: ProgramBuilder,
    sizes: RegionSizes,
    op_names: Vec<&'static str>,
    contents: Vec<(Tensor, Vec<f64>)>,
    tokens: Vec<(Tensor, Vec<u32>)>,
    private: Vec<Tensor>,
    magnitudes: Vec<(Tensor, f64)>,
    key: Key,
    pub(crate) args: RunArgs,
}

impl Case {
    /// `reduction` is the number of terms in the longest sum.
    pub(crate) fn new(name: String, reduction: usize) -> Case {
        let key = name.bytes().fold(Key::new(1, Purpose::Synthetic), |key, byte| key.fold(u64::from(byte)));
        Case {
            name,
            reduction,
            builder: ProgramBuilder::new(RegionSizes::default()),
            sizes: RegionSizes::default(),
            op_names: Vec::new(),
            contents: Vec::new(),
            tokens: Vec::new(),
            private: Vec::new(),
            magnitudes: Vec::new(),
            key,
            args: ARGS,
        }
    }

    /// Names of the operations pushed so far.
    pub(crate) fn op_names(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.op_names.clone().into_iter()
    }

    /// Normal random numbers that f32 holds exactly.
    pub(crate) fn normal(&mut self, count: usize) -> Vec<f64> {
        self.key = self.key.fold(count as u64);
        (0..count).map(|i| f64::from(self.key.normal_pair(i as u64)[0] as f32)).collect()
    }

    /// A tensor with this content anywhere but among the inputs.
    pub(crate) fn tensor(&mut self, region: Region, [rows, cols]: [usize; 2], content: Vec<f64>) -> Tensor {
        assert_eq!(rows * cols, content.len());
        let tensor = if region == Region::Activations {
            self.builder.activation(rows, cols)
        } else {
            self.place(region, rows, cols)
        };
        self.contents.push((tensor, content));
        tensor
    }

    fn place(&mut self, region: Region, rows: usize, cols: usize) -> Tensor {
        let tensor = Tensor::new(region, self.sizes.get(region), rows, cols);
        self.sizes.set(region, (tensor.offset + tensor.len()).next_multiple_of(ALIGN_ELEMENTS));
        tensor
    }

    /// A random activation.
    pub(crate) fn random(&mut self, rows: usize, cols: usize) -> Tensor {
        let content = self.normal(rows * cols);
        self.tensor(Region::Activations, [rows, cols], content)
    }

    /// A random parameter.
    pub(crate) fn param(&mut self, rows: usize, cols: usize) -> Tensor {
        let content = self.normal(rows * cols);
        self.tensor(Region::Params, [rows, cols], content)
    }

    /// An activation that the program writes whole.
    pub(crate) fn output(&mut self, rows: usize, cols: usize) -> Tensor {
        self.tensor(Region::Activations, [rows, cols], vec![f64::NAN; rows * cols])
    }

    /// A gradient that is written whole, or added to.
    pub(crate) fn grad(&mut self, rows: usize, cols: usize, accumulate: bool) -> Tensor {
        let content = if accumulate { self.normal(rows * cols) } else { vec![f64::NAN; rows * cols] };
        self.tensor(Region::Grads, [rows, cols], content)
    }

    /// An activation whose content is up to the backend.
    pub(crate) fn private(&mut self, rows: usize, cols: usize) -> Tensor {
        let tensor = self.output(rows, cols);
        self.private.push(tensor);
        tensor
    }

    /// Token ids.
    pub(crate) fn tokens(&mut self, tokens: Vec<u32>) -> Tensor {
        let tensor = self.place(Region::Inputs, 1, tokens.len());
        self.tokens.push((tensor, tokens));
        tensor
    }

    /// `count` random token ids below `vocab`.
    pub(crate) fn random_tokens(&mut self, count: usize, vocab: usize) -> Vec<u32> {
        self.key = self.key.fold(count as u64);
        (0..count).map(|i| self.key.below(i as u64, vocab as u64) as u32).collect()
    }

    /// Initial content of a tensor.
    pub(crate) fn content(&self, tensor: Tensor) -> &[f64] {
        &self.contents.iter().find(|(other, _)| *other == tensor).expect("a tensor of this case").1
    }

    /// Largest magnitude in the initial content of a tensor.
    pub(crate) fn largest(&self, tensor: Tensor) -> f64 {
        largest(self.content(tensor))
    }

    /// The size of the terms that are summed in a tensor, where cancellation can leave sums
    /// that are all much smaller: errors are relative to at least this.
    pub(crate) fn term_magnitude(&mut self, tensor: Tensor, magnitude: f64) {
        self.magnitudes.push((tensor, magnitude));
    }

    /// Appends an operation.
    pub(crate) fn push(&mut self, op: impl Into<Op>) {
        let op = op.into();
        self.op_names.push(op.name());
        self.builder.push(op);
    }

    /// Plans memory.
    pub(crate) fn finish(self) -> Runnable {
        let activations: Vec<Tensor> =
            self.contents.iter().map(|(tensor, _)| *tensor).filter(|t| t.region == Region::Activations).collect();
        let mut builder = self.builder;
        builder.reserve(&self.sizes);
        let (program, planned) = builder.build(&activations);
        let planned: Vec<(Tensor, Tensor)> = activations.into_iter().zip(planned).collect();
        let place = |tensor: &Tensor| {
            planned.iter().find(|(virtual_, _)| virtual_ == tensor).map_or(*tensor, |(_, planned)| *planned)
        };
        let private: Vec<Tensor> = self.private.iter().map(place).collect();
        let mut outputs: Vec<Output> = Vec::new();
        for call in program.ops() {
            let mut number = 0;
            call.op.clone().visit(&mut |tensor, access| {
                let is_known = outputs.iter().any(|output| output.tensor == *tensor);
                if access != Access::Read && !is_known && !private.contains(tensor) {
                    let label = format!("`{}` operand {number}", call.op.name());
                    outputs.push(Output { label, tensor: *tensor, magnitude: 0.0 });
                }
                number += 1;
            });
        }
        for (tensor, magnitude) in &self.magnitudes {
            for output in outputs.iter_mut().filter(|output| output.tensor == place(tensor)) {
                output.magnitude = *magnitude;
            }
        }
        Runnable {
            name: self.name,
            reduction: self.reduction,
            contents: self.contents.iter().map(|(tensor, values)| (place(tensor), values.clone())).collect(),
            program,
            planned,
            tokens: self.tokens,
            outputs,
            args: self.args,
        }
    }

    /// Runs on every backend and compares tensors with values that do not come from the reference.
    #[track_caller]
    pub(crate) fn check_values(self, expected: &[(Tensor, &[f64])]) {
        let runnable = self.finish();
        for (name, mut backend) in backends() {
            runnable.run_f32(backend.as_mut());
            for (tensor, expected) in expected {
                let found = read(backend.as_mut(), runnable.place(*tensor));
                if let Err(why) = compare(expected, &found, f32_tolerance(runnable.reduction), 0.0) {
                    panic!("{name}: {}: {tensor:?}: {why}", runnable.name);
                }
            }
        }
    }

    /// Compares `gradients` (pairs of a tensor and its gradient) of `Σ weights ∘ out`, which
    /// the whole program leaves, with central differences of its first `forward_ops`
    /// operations. What a gradient tensor held before is subtracted if it is a number.
    pub(crate) fn check_grad(self, forward_ops: usize, out: Tensor, weights: &[f64], gradients: &[(Tensor, Tensor)]) {
        let runnable = self.finish();
        let program = &runnable.program;
        let forward =
            Program::new(program.ops()[..forward_ops].to_vec(), *program.sizes()).expect("a part of a program");
        let mut backend = RefBackend::<f64>::new();
        let mut scalar = |contents: &[(Tensor, Vec<f64>)]| {
            runnable.run_f64(&mut backend, &forward, contents);
            dot(slice(&backend, runnable.place(out)), weights)
        };
        let mut contents = runnable.contents.clone();
        let mut numeric: Vec<Vec<f64>> = Vec::new();
        for (tensor, _) in gradients {
            let index = runnable.content_index(*tensor);
            let differences = (0..tensor.len()).map(|element| {
                let center = contents[index].1[element];
                let mut at = |steps: f64| {
                    contents[index].1[element] = center + steps * GRAD_STEP;
                    scalar(&contents)
                };
                let difference = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * GRAD_STEP);
                contents[index].1[element] = center;
                difference
            });
            numeric.push(differences.collect());
        }
        let mut backend = RefBackend::<f64>::new();
        runnable.run_f64(&mut backend, &runnable.program, &runnable.contents);
        for ((tensor, gradient), numeric) in gradients.iter().zip(numeric) {
            let before = &runnable.contents[runnable.content_index(*gradient)].1;
            let after = slice(&backend, runnable.place(*gradient));
            let analytic: Vec<f64> = after
                .iter()
                .zip(before)
                .map(|(after, before)| if before.is_nan() { *after } else { after - before })
                .collect();
            let floor = GRAD_FLOOR * largest(&numeric).max(1e-6);
            for (element, (a, n)) in analytic.iter().zip(&numeric).enumerate() {
                let error = (a - n).abs() / a.abs().max(n.abs()).max(floor);
                assert!(
                    error <= GRAD_F64,
                    "{}: gradient of {tensor:?}, element {element}: analytic {a}, numeric {n}, relative error {error:.1e}",
                    runnable.name
                );
            }
        }
    }
}

/// A finished case.
pub(crate) struct Runnable {
    name: String,
    reduction: usize,
    pub(crate) program: Program,
    planned: Vec<(Tensor, Tensor)>,
    contents: Vec<(Tensor, Vec<f64>)>,
    tokens: Vec<(Tensor, Vec<u32>)>,
    outputs: Vec<Output>,
    args: RunArgs,
}

struct Output {
    label: String,
    tensor: Tensor,
    magnitude: f64,
}

impl Runnable {
    /// The planned tensor of a tensor of the case.
    pub(crate) fn place(&self, tensor: Tensor) -> Tensor {
        self.planned.iter().find(|(virtual_, _)| *virtual_ == tensor).map_or(tensor, |(_, planned)| *planned)
    }

    fn content_index(&self, tensor: Tensor) -> usize {
        let place = self.place(tensor);
        self.contents.iter().position(|(other, _)| *other == place).expect("a tensor of this case")
    }

    fn run_f64(&self, backend: &mut RefBackend<f64>, program: &Program, contents: &[(Tensor, Vec<f64>)]) {
        backend.prepare(program.sizes(), &[program]).expect("the reference runs everything");
        for (tensor, values) in contents {
            backend.region_mut(tensor.region)[tensor.offset..][..tensor.len()].copy_from_slice(values);
        }
        for (tensor, tokens) in &self.tokens {
            backend.write_tokens(tensor.offset, tokens).expect("it is prepared");
        }
        backend.run(program, &self.args, None).expect("the reference runs everything");
    }

    /// Runs on any backend and returns the content of a tensor for each output.
    fn run_f32(&self, backend: &mut dyn Backend) -> Vec<Vec<f64>> {
        self.load(backend);
        backend.run(&self.program, &self.args, None).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        self.outputs.iter().map(|output| read(backend, output.tensor)).collect()
    }

    /// Prepares a backend for the program and writes all contents.
    pub(crate) fn load(&self, backend: &mut dyn Backend) {
        backend
            .prepare(self.program.sizes(), &[&self.program])
            .unwrap_or_else(|error| panic!("{}: {error}", self.name));
        for (tensor, values) in &self.contents {
            let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
            backend.write(tensor.region, tensor.offset, &values).expect("it is prepared");
        }
        for (tensor, tokens) in &self.tokens {
            backend.write_tokens(tensor.offset, tokens).expect("it is prepared");
        }
    }

    /// The same with the model's wide activations in 16 bits, and their contents rounded; none where there are no such
    /// activations, or one's rows or heads are not whole groups of four.
    fn in_16_bits(mut self, format: Format16) -> Option<Runnable> {
        let wide: Vec<Tensor> = self.program.ops().iter().flat_map(|call| wide_operands(&call.op)).collect();
        let is_wide = |tensor: &Tensor| tensor.region == Region::Activations && wide.contains(tensor);
        let has_whole_heads = self.program.ops().iter().all(|call| match &call.op {
            Op::Attention(op) => (op.out.cols / op.heads).is_multiple_of(4),
            Op::Swiglu(op) => op.out.cols.is_multiple_of(4),
            Op::SwigluBwd(op) => op.out.cols.is_multiple_of(4),
            _ => true,
        });
        if wide.is_empty() || !has_whole_heads || !wide.iter().all(|tensor| tensor.cols.is_multiple_of(4)) {
            return None;
        }
        // Both regions have the places of all activations.
        let mut sizes = *self.program.sizes();
        sizes.set(Region::Activations16, sizes.get(Region::Activations));
        let moved = |tensor: &mut Tensor| {
            if is_wide(tensor) {
                tensor.region = Region::Activations16;
            }
        };
        for (tensor, values) in &mut self.contents {
            if is_wide(tensor) {
                for value in values.iter_mut() {
                    *value = rounded(*value, format);
                }
            }
            moved(tensor);
        }
        let mut ops = self.program.ops().to_vec();
        for call in &mut ops {
            call.op.visit(&mut |tensor, _| moved(tensor));
        }
        self.program = Program::new(ops, sizes).expect("the same program in two regions");
        self.outputs.iter_mut().for_each(|output| moved(&mut output.tensor));
        Some(self)
    }

    /// Compares what a backend leaves with what the f64 reference does; the first mismatch of
    /// each output as one line.
    fn mismatches(&self, expected: &[Vec<f64>], backend: &mut dyn Backend, tolerance: f64) -> Vec<String> {
        let actual = self.run_f32(backend);
        let mut lines = Vec::new();
        for ((output, expected), actual) in self.outputs.iter().zip(expected).zip(&actual) {
            if let Err(why) = compare(expected, actual, tolerance, output.magnitude) {
                let [rows, cols] = [output.tensor.rows, output.tensor.cols];
                lines.push(format!("{}: {} [{rows}, {cols}]: {why}", self.name, output.label));
            }
        }
        lines
    }
}

/// Runs every case on every backend and fails with all mismatches.
#[track_caller]
pub(crate) fn check_ops(cases: Vec<Case>) {
    let mut backends = backends();
    let mut reference = RefBackend::<f64>::new();
    let mut failures = Vec::new();
    for (number, case) in cases.into_iter().enumerate() {
        let runnable = case.finish();
        runnable.run_f64(&mut reference, &runnable.program, &runnable.contents);
        let expected: Vec<Vec<f64>> =
            runnable.outputs.iter().map(|output| slice(&reference, output.tensor).to_vec()).collect();
        for (name, backend) in &mut backends {
            if !runs(name, number) {
                continue;
            }
            let lines = runnable.mismatches(&expected, backend.as_mut(), f32_tolerance(runnable.reduction));
            failures.extend(lines.into_iter().map(|line| format!("{name}: {line}")));
        }
    }
    let shown = &failures[..failures.len().min(SHOWN_MISMATCHES)];
    assert!(failures.is_empty(), "{} mismatches, of them\n{}", failures.len(), shown.join("\n"));
}

/// Runs one in `every` of the cases whose rows are whole groups of four, with the model's wide activations in 16 bits;
/// fails with all mismatches. Returns the names of the operations that ran.
#[track_caller]
pub(crate) fn check_in_16_bits(
    cases: Vec<Case>,
    every: usize,
    format: Format16,
    backend: &mut dyn Backend,
) -> BTreeSet<&'static str> {
    let mut reference = RefBackend::<f64>::new();
    let (mut failures, mut tested) = (Vec::new(), BTreeSet::new());
    for case in cases.into_iter().filter_map(|case| case.finish().in_16_bits(format)).step_by(every) {
        case.run_f64(&mut reference, &case.program, &case.contents);
        let expected: Vec<Vec<f64>> =
            case.outputs.iter().map(|output| slice(&reference, output.tensor).to_vec()).collect();
        let tolerance = f32_tolerance(case.reduction) + SIXTEEN_ROUNDINGS * unit_roundoff(format);
        failures.extend(case.mismatches(&expected, backend, tolerance));
        tested.extend(case.program.ops().iter().map(|call| call.op.name()));
    }
    let shown = &failures[..failures.len().min(SHOWN_MISMATCHES)];
    assert!(failures.is_empty(), "{format:?}: {} mismatches, of them\n{}", failures.len(), shown.join("\n"));
    tested
}

/// Runs every case on all these backends and fails unless they agree in every bit.
#[track_caller]
pub(crate) fn check_same_bits(cases: Vec<Case>, mut backends: Vec<NamedBackend>) {
    for case in cases {
        let runnable = case.finish();
        let mut first: Option<Vec<Vec<u64>>> = None;
        for (name, backend) in &mut backends {
            let outputs = runnable.run_f32(backend.as_mut());
            let bits = outputs.iter().map(|values| values.iter().map(|value| value.to_bits()).collect()).collect();
            match &first {
                None => first = Some(bits),
                Some(first) => assert!(*first == bits, "{}: other bits on {name}", runnable.name),
            }
        }
    }
}

/// Whether all numbers are within `tolerance` of the tensor's largest magnitude, or of
/// `magnitude` if that is larger.
pub(crate) fn compare(expected: &[f64], actual: &[f64], tolerance: f64, magnitude: f64) -> Result<(), String> {
    let allowed = tolerance * largest(expected).max(magnitude);
    let mut worst = None;
    let mut bad = 0;
    for (element, (&e, &a)) in expected.iter().zip(actual).enumerate() {
        let is_same_non_finite = !e.is_finite() && (e.to_bits() == a.to_bits() || (e.is_nan() && a.is_nan()));
        let error = if is_same_non_finite { 0.0 } else { (e - a).abs() };
        if error.is_nan() || error > allowed {
            bad += 1;
            let is_worse = worst.is_none_or(|(_, _, _, other): (usize, f64, f64, f64)| error > other || error.is_nan());
            if is_worse {
                worst = Some((element, e, a, error));
            }
        }
    }
    match worst {
        None => Ok(()),
        Some((element, e, a, error)) => Err(format!(
            "{bad} of {} elements differ, worst at {element}: expected {e}, found {a}, error {error:.2e}, allowed {allowed:.2e}",
            expected.len()
        )),
    }
}

/// A tensor's content on any backend.
pub(crate) fn read(backend: &mut dyn Backend, tensor: Tensor) -> Vec<f64> {
    let mut values = vec![0.0; tensor.len()];
    backend.read(tensor.region, tensor.offset, &mut values).expect("it is prepared");
    values.into_iter().map(f64::from).collect()
}

fn slice(backend: &RefBackend<f64>, tensor: Tensor) -> &[f64] {
    &backend.region(tensor.region)[tensor.offset..][..tensor.len()]
}

/// Largest finite magnitude.
pub(crate) fn largest(values: &[f64]) -> f64 {
    values.iter().map(|value| value.abs()).filter(|value| value.is_finite()).fold(0.0, f64::max)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
