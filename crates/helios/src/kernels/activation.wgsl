// Pointwise activations and their derivatives. GELU has its tanh form, as in GPT-2.
// tanh and sigmoid use `exp`, so that large arguments saturate on every driver.

fn sigmoid(x: vec4<f32>) -> vec4<f32> {
    return 1.0 / (1.0 + exp(-x));
}

fn tanh_of(x: vec4<f32>) -> vec4<f32> {
    return 1.0 - 2.0 / (1.0 + exp(2.0 * x));
}

const GELU_SCALE: f32 = 0.7978845608028654; // sqrt(2/pi)
const GELU_CUBIC: f32 = 0.044715;

// `ACTIVATION` is 1 for gelu, 2 for silu, 3 for relu.
fn activate(x: vec4<f32>) -> vec4<f32> {
    if ACTIVATION == 1u {
        return 0.5 * x * (1.0 + tanh_of(GELU_SCALE * (x + GELU_CUBIC * x * x * x)));
    } else if ACTIVATION == 2u {
        return x * sigmoid(x);
    }
    // `max` may drop a NaN.
    return select(x, vec4(0.0), x < vec4(0.0));
}

fn activate_derivative(x: vec4<f32>) -> vec4<f32> {
    if ACTIVATION == 1u {
        let t = tanh_of(GELU_SCALE * (x + GELU_CUBIC * x * x * x));
        let inner = GELU_SCALE * (1.0 + 3.0 * GELU_CUBIC * x * x);
        return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner;
    } else if ACTIVATION == 2u {
        let s = sigmoid(x);
        return s * (1.0 + x * (1.0 - s));
    }
    return select(vec4(0.0), vec4(1.0), x > vec4(0.0));
}
