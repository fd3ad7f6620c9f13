"""A language model of 334 parameters, trained for real and slowly: what a change of it costs or gains is known.

Attention over embeddings, a tanh layer, a softmax over 16 characters; AdamW. `WORK` is time that a kernel wastes:
changing it changes speed and nothing else. A step is a list of kernels, each of which works on the whole batch.
Matrices are lists of rows; activations of a batch are lists with one row for each token, sequence after sequence.
"""
from math import exp, log, sqrt, tanh
from operator import mul
from time import perf_counter

BLOCK, WIDTH, HIDDEN = 8, 6, 6
BATCH = 2
SCALE = WIDTH**-0.5
LR, WARMUP = 0.03, 4
BETA1, BETA2, EPS = 0.9, 0.95, 1e-6
DECAY, CLIP = 0.1, 0.3

# Busy work of each kernel: passes through an empty loop.
WORK = {
    "attention": 40_000,
    "head": 10_000,
    "attention_backward": 40_000,
    "adamw": 10_000,
}


def spin(count):
    for _ in range(count):
        pass


def dot(a, b):
    return sum(map(mul, a, b))


def product(a, b):
    """a·bᵀ."""
    return [[dot(x, y) for y in b] for x in a]


def transposed(a):
    return list(zip(*a))


def plus(a, b):
    return [[x + y for x, y in zip(*rows)] for rows in zip(a, b)]


def softmax(scores):
    top = max(scores)
    powers = [exp(score - top) for score in scores]
    total = sum(powers)
    return [power / total for power in powers]


def sequences(rows, block):
    return [rows[start : start + block] for start in range(0, len(rows), block)]


# Forward. `s` holds what a step computes.


def embedding(s):
    table, places = s.params["embedding"], s.params["position"]
    s.x = [[a + b for a, b in zip(table[token], places[t])] for tokens in s.tokens for t, token in enumerate(tokens)]


def attention(s):
    """Each token adds a mean of the ones before it and itself."""
    s.query = product(s.x, s.params["query"])
    s.shares, mixed = [], []
    for x, query in zip(sequences(s.x, s.block), sequences(s.query, s.block)):
        columns = transposed(x)
        for t, q in enumerate(query):
            shares = softmax([SCALE * dot(q, row) for row in x[: t + 1]])
            s.shares.append(shares + [0.0] * (len(x) - t - 1))
            mixed.append([dot(shares, column) for column in columns])
    s.mixed = plus(s.x, mixed)


def hidden(s):
    (bias,) = s.params["hidden.bias"]
    s.hidden = [[tanh(dot(x, row) + b) for row, b in zip(s.params["hidden"], bias)] for x in s.mixed]


def head(s):
    (bias,) = s.params["head.bias"]
    s.logits = [[dot(h, row) + b for row, b in zip(s.params["head"], bias)] for h in s.hidden]


def loss(s):
    s.odds = [softmax(logits) for logits in s.logits]
    s.loss = -sum(log(odds[target]) for odds, target in zip(s.odds, s.targets)) / len(s.targets)


# Backward. `d_` is the gradient of what follows it.


def head_backward(s):
    s.d_logits = [[odd / len(s.targets) for odd in odds] for odds in s.odds]
    for row, target in zip(s.d_logits, s.targets):
        row[target] -= 1 / len(s.targets)
    columns = transposed(s.d_logits)
    s.grads["head"] = product(columns, transposed(s.hidden))
    s.grads["head.bias"] = [[sum(column) for column in columns]]
    s.d_hidden = product(s.d_logits, transposed(s.params["head"]))


def hidden_backward(s):
    d_sum = [[d * (1 - h * h) for d, h in zip(*rows)] for rows in zip(s.d_hidden, s.hidden)]
    columns = transposed(d_sum)
    s.grads["hidden"] = product(columns, transposed(s.mixed))
    s.grads["hidden.bias"] = [[sum(column) for column in columns]]
    s.d_mixed = product(d_sum, transposed(s.params["hidden"]))


def attention_backward(s):
    s.d_x, d_query = [], []
    parts = (s.x, s.query, s.shares, s.d_mixed)
    for x, query, shares, d_mixed in zip(*(sequences(part, s.block) for part in parts)):
        d_scores = []
        for share, d_share in zip(shares, product(d_mixed, x)):
            mean = dot(share, d_share)
            d_scores.append([SCALE * a * (d - mean) for a, d in zip(share, d_share)])
        d_query += product(d_scores, transposed(x))
        d_x = product(transposed(shares), transposed(d_mixed))
        s.d_x += plus(d_x, product(transposed(d_scores), transposed(query)))
    s.grads["query"] = product(transposed(d_query), transposed(s.x))
    s.d_x = plus(plus(s.d_x, s.d_mixed), product(d_query, transposed(s.params["query"])))


def embedding_backward(s):
    table = s.grads["embedding"] = [[0.0] * WIDTH for _ in VOCABULARY]
    places = s.grads["position"] = [[0.0] * WIDTH for _ in range(BLOCK)]
    tokens = [(t, token) for tokens in s.tokens for t, token in enumerate(tokens)]
    for (t, token), d in zip(tokens, s.d_x):
        table[token] = [a + b for a, b in zip(table[token], d)]
        places[t] = [a + b for a, b in zip(places[t], d)]


# Update.


def zero_unused(s):
    """A pass over the gradients that does nothing: backward has written all of them."""
    for name, rows in s.grads.items():
        s.grads[name] = [list(row) for row in rows]


def clip(s):
    s.grad_norm = sqrt(sum(dot(row, row) for rows in s.grads.values() for row in rows))
    s.coefficient = min(1.0, CLIP / s.grad_norm) if s.grad_norm > 0 else 1.0


def adamw(s):
    first, second = 1 - BETA1**s.step, 1 - BETA2**s.step
    for name, rows in s.params.items():
        decay = 1 - s.lr * DECAY if len(rows) > 1 else 1.0
        for w, g, m, v in zip(rows, s.grads[name], s.moments[name], s.squares[name]):
            for i, slope in enumerate(g):
                slope *= s.coefficient
                m[i] = BETA1 * m[i] + (1 - BETA1) * slope
                v[i] = BETA2 * v[i] + (1 - BETA2) * slope * slope
                w[i] = w[i] * decay - s.lr * (m[i] / first) / (sqrt(v[i] / second) + EPS)


FORWARD = [("fwd", embedding), ("fwd", attention), ("fwd", hidden), ("fwd", head)]
STEP = [
    *FORWARD,
    ("fwd", loss),
    ("bwd", head_backward),
    ("bwd", hidden_backward),
    ("bwd", attention_backward),
    ("bwd", embedding_backward),
    ("optim", zero_unused),
    ("optim", clip),
    ("optim", adamw),
]


class State:
    """Parameters, what the optimiser remembers, and what a step computes."""

    def __init__(self, params):
        self.params, self.grads = params, {}
        self.moments = {name: [[0.0] * len(row) for row in rows] for name, rows in params.items()}
        self.squares = {name: [[0.0] * len(row) for row in rows] for name, rows in params.items()}

    def read(self, windows):
        self.block = len(windows[0]) - 1
        self.tokens = [window[:-1] for window in windows]
        self.targets = [token for window in windows for token in window[1:]]

    def infer(self, tokens):
        """Logits of each place of one sequence."""
        self.block, self.tokens = len(tokens), [tokens]
        for _, kernel in FORWARD:
            kernel(self)
        return self.logits


def initial(seed):
    random = Random(seed, 2)

    def uniform(rows, columns, size):
        return [[size * (2 * random.uniform() - 1) for _ in range(columns)] for _ in range(rows)]

    return {
        "embedding": uniform(len(VOCABULARY), WIDTH, 1.0),
        "position": uniform(BLOCK, WIDTH, 0.5),
        "query": uniform(WIDTH, WIDTH, 1.5),
        "hidden": uniform(HIDDEN, WIDTH, 0.5),
        "hidden.bias": [[0.0] * HIDDEN],
        "head": uniform(len(VOCABULARY), HIDDEN, 0.5),
        "head.bias": [[0.0] * len(VOCABULARY)],
    }


def rate(step):
    """Linear warm-up, then constant: what goes wrong late weighs as much as what goes wrong early."""
    return LR * min(1.0, step / WARMUP)


def train(flags):
    steps, seed, batch = int(flags["steps"]), int(flags.get("seed", 1)), int(flags.get("batch", BATCH))
    sample_interval, is_traced = int(flags.get("sampleInterval", 0)), "trace" in flags
    loader = Loader(read_tokens()[0], seed, BLOCK)
    s = State(initial(seed))
    metrics, turns = Metrics(), Turns()
    totals = {}
    for step in range(1, steps + 1):
        turns.before_step(lambda done: write_weights(f"run/checkpoint-{done}", s.params))
        started = perf_counter()
        s.step, s.lr = step, rate(step)
        s.read(loader.batch(batch))
        phases = {}
        for phase, kernel in STEP:
            begin = perf_counter()
            kernel(s)
            spin(WORK.get(kernel.__name__, 0))
            ms = (perf_counter() - begin) * 1e3
            phases[f"timing_{phase}_ms"] = phases.get(f"timing_{phase}_ms", 0.0) + ms
            total = totals.setdefault((kernel.__name__, phase), [0, 0.0])
            total[0], total[1] = total[0] + 1, total[1] + ms
        ms = (perf_counter() - started) * 1e3
        metrics.row(
            step=step,
            loss=s.loss,
            gradNorm=s.grad_norm,
            data_hash=f"{loader.hash:016x}",
            kernels=len(STEP),
            flops=sum(flops_of(batch * BLOCK).values()),
            ms_per_iter=ms,
            **(phases if is_traced else {}),
        )
        if sample_interval and step % sample_interval == 0:
            print(decode(continuation(s.params, encode("the "), 16, 1.0, Random(seed, 3))[0]))
        turns.after_step(step == steps)
    write_weights(f"run/checkpoint-{steps}", s.params)
    if is_traced:
        write_kernels(steps, batch, totals)


def flops_of(tokens):
    """Of a step's kernels: a multiplication with its addition is two."""
    return {
        "attention": 2 * tokens * WIDTH * (WIDTH + 2 * BLOCK),
        "hidden": 2 * tokens * WIDTH * HIDDEN,
        "head": 2 * tokens * HIDDEN * len(VOCABULARY),
        "head_backward": 4 * tokens * HIDDEN * len(VOCABULARY),
        "hidden_backward": 4 * tokens * WIDTH * HIDDEN,
        "attention_backward": 4 * tokens * WIDTH * (WIDTH + 2 * BLOCK),
    }


def write_kernels(steps, batch, totals):
    """Totals of each kernel. A number is eight bytes."""
    import json

    tokens = batch * BLOCK
    flops = flops_of(tokens)
    rows = [
        {
            "name": name,
            "phase": phase,
            "calls": calls,
            "time_ms": ms,
            "flops": calls * flops.get(name, tokens * WIDTH),
            "bytes": calls * 8 * tokens * WIDTH,
        }
        for (name, phase), (calls, ms) in totals.items()
    ]
    with open("run/kernels.json", "w", encoding="ascii") as file:
        json.dump({"steps": steps, "kernels": rows}, file)


def continuation(params, tokens, count, temperature, random):
    """So many tokens more, and how far each choice was from being another one: at temperature 0 the gap to the second
    largest logit, else the distance of the uniform number from the edge of its token's interval."""
    s, drawn, margins = State(params), [], []
    for _ in range(count):
        logits = s.infer((tokens + drawn)[-BLOCK:])[-1]
        if temperature == 0:
            second, top = sorted(logits)[-2:]
            drawn.append(logits.index(top))
            margins.append(top - second)
            continue
        place, below = random.uniform(), 0.0
        for token, odd in enumerate(softmax([logit / temperature for logit in logits])):
            if place < below + odd or token == len(logits) - 1:
                drawn.append(token)
                margins.append(min(place - below, below + odd - place))
                break
            below += odd
    return drawn, margins


def sample(flags):
    import json

    prompt, count = flags.get("prompt", "the "), int(flags.get("tokens", 64))
    random = Random(int(flags.get("seed", 1)), 3)
    params, temperature = read_weights(flags["sample"]), float(flags.get("temperature", 1))
    tokens, margins = continuation(params, encode(prompt), count, temperature, random)
    print(json.dumps({"prompt": prompt, "text": decode(tokens), "tokens": tokens, "margins": margins}))


def evaluate(flags):
    """Mean loss on the held-out text."""
    tokens = read_tokens()[1]
    s = State(read_weights(flags["eval"]))
    s.read([tokens[start : start + BLOCK + 1] for start in range(0, len(tokens) - BLOCK, BLOCK)])
    for _, kernel in FORWARD:
        kernel(s)
    loss(s)
    print(f'{{"loss": {s.loss!r}}}')


def main():
    flags = {name: value for name, _, value in (arg.removeprefix("--").partition("=") for arg in sys.argv[1:])}
    if "sample" in flags:
        sample(flags)
    elif "eval" in flags:
        evaluate(flags)
    elif "peaks" in flags:
        print('{"gflops": 10.0, "gb_s": 10.0}')
    else:
        train(flags)


main()
