//! The words and numbers of a subject in plain signs, and their meaning for a reader of speed-ups.

/// A word, a number or a sign, with its place in the text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token<'t> {
    pub(super) kind: Kind,
    pub(super) text: &'t str,
    /// Where it begins, in bytes.
    pub(super) start: usize,
    /// Where it ends.
    pub(super) end: usize,
}

/// What a token means for speed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// A number, in digits or words, without a unit.
    Number(f64),
    /// `%`, `percent`, `pct`, `per mille`.
    Percent,
    /// `x`, `times`, `fold` behind a number; `x` before one.
    Times,
    /// `twice`, `tenfold`: a factor by itself. `double` and `triple` need a noun of speed right behind them.
    Multiple,
    /// `half`, `a third`.
    Share,
    /// `double`, `triples`.
    Doubles,
    /// `halves`.
    Halves,
    /// `ms`, `seconds`.
    Time,
    /// `tok/s`, `samples per second`.
    Rate,
    /// `faster`, `speed-up`: says the direction, too.
    Faster,
    /// `speed`, `throughput`: higher is better.
    Speed,
    /// `step time`, `latency`: lower is better.
    Duration,
    /// `per step`, behind a time.
    PerStep,
    /// `more`, `improve`.
    Up,
    /// `less`, `cut`.
    Down,
    /// `slower`, `costs`, `tolerance`: a number beside such a word is not a gain.
    Loss,
    /// `not`, `without`.
    Negation,
    /// `about`, `by`: may stand between a quantity and its noun.
    Filler,
    /// `for`, `with`, `and`: the words that follow are about something else.
    Break,
    /// `on`, `over`: may follow a quantity that ends its phrase.
    Preposition,
    /// `memory`, `coverage`: a quantity of something that is not speed.
    Other,
    /// `tiles`, `unrolled`: a factor beside them is a shape.
    Shape,
    /// `build`, `tests`: speed, but not of training.
    Elsewhere,
    /// `training`, `step`: the speed that is claimed here.
    Training,
    /// Any other word.
    Word,
    /// A sign.
    Sign(char),
}

/// Words by kind; phrases are joined by a space. The first line that has a word counts.
const WORDS: &[(Kind, &str)] = &[
    (
        Kind::Percent,
        "percent|percents|percentage|percentages|pct|pcnt|pc|permille|permil|pp|bps|per cent|per mille|per mil|per hundred|percentage points|percentage point|basis points|p.c.",
    ),
    (Kind::Times, "x|times|fold"),
    (
        Kind::Multiple,
        "twice|thrice|twofold|threefold|fourfold|fivefold|sixfold|eightfold|tenfold|hundredfold|manyfold|multifold|order of magnitude|orders of magnitude|magnitude",
    ),
    (
        Kind::Doubles,
        "double|doubles|doubled|doubling|triple|triples|tripled|tripling|treble|trebles|trebled|quadruple|quadruples|quadrupled|quadrupling|quintuple|quintuples",
    ),
    (Kind::Halves, "halve|halves|halved|halving"),
    (
        Kind::Time,
        "ns|us|usec|ms|msec|msecs|s|sec|secs|second|seconds|min|mins|minute|minutes|hour|hours|nanosecond|nanoseconds|microsecond|microseconds|millisecond|milliseconds",
    ),
    (
        Kind::Rate,
        "tps|toks|fps|qps|gflops|tflops|pflops|mflops|flop/s|token rate|step rate|sample rate|training rate|tok s|toks s",
    ),
    (
        Kind::Faster,
        "faster|quicker|speedier|swifter|snappier|fastest|speedup|speedups|speed up|speeds up|sped up|speeding up|speed ups|accelerate|accelerates|accelerated|accelerating|acceleration|outperform|outperforms|as fast|as quick|as quickly",
    ),
    (Kind::Speed, "speed|speeds|throughput|throughputs|thrpt|tput|perf|performance|mfu|velocity"),
    (
        Kind::Duration,
        "latency|latencies|runtime|runtimes|walltime|wallclock|wall clock|wall time|run time|running time|step time|step times|time per step|time a step|time per token|time per iteration|iteration time|iter time|epoch time|training time|train time|time to train|kernel time|compute time|gpu time|cpu time|execution time|decode time|decoding time|prefill time|forward time|backward time|inference time|processing time|elapsed time|total time|step duration|step latency|time to first token|ttft|the time|less time|time spent|time taken|time needed|shorter steps|shorter step|time saved|overall time|steps take|step takes|steps are|step is|steps took",
    ),
    (
        Kind::PerStep,
        "per step|a step|each step|every step|per token|per iteration|per iter|per batch|per epoch|ms step",
    ),
    (
        Kind::Up,
        "more|higher|better|greater|extra|gain|gains|gained|improve|improves|improved|improvement|improvements|improving|increase|increases|increased|increasing|boost|boosts|boosted|boosting|raise|raises|raised|raising|up|win|wins|uplift|uptick|lift|lifts|bump|bumps|plus|additional|grow|grows|grew|grown|rise|rises|rose|risen|climb|climbs|jump|jumps|worth",
    ),
    (
        Kind::Loss,
        "slower|slowdown|slowdowns|loss|losses|lose|loses|lost|worse|regress|regresses|regressed|regression|regressions|penalty|penalties|hit|cost|costs|costing|overhead|overheads|noise|within|tolerance|tolerances|threshold|thresholds|variance|sd|stddev|error|errors|degradation|degrades|degraded|floor|margin|jitter|spread|deviation",
    ),
    (
        Kind::Down,
        "less|lower|lowers|lowered|reduce|reduces|reduced|reducing|reduction|reductions|cut|cuts|cutting|save|saves|saved|saving|savings|shave|shaves|shaved|shaving|shorter|shorten|shortens|shortened|shrink|shrinks|drop|drops|dropped|decrease|decreases|decreased|down|off|trim|trims|trimmed|minus|slash|slashes",
    ),
    (Kind::Negation, "not|no|never|why|whether|isn|isnt|cannot|nor|neither|hardly"),
    (
        Kind::Filler,
        "by|of|about|around|roughly|nearly|almost|approximately|approx|circa|ca|up to|at least|at most|over a|some|a|an|the|is|was|are|were|now|as|to|or|so|than|its|our|just|only|merely|even|exactly|fully|another|factor|get|gets|got|goes|went|run|runs|ran|running|makes|make|going|be|becomes",
    ),
    (
        Kind::Break,
        "for|with|without|via|using|when|if|and|but|that|because|where|after|before|instead|while|into|unless|whose|which|between|against|until|every|each|per",
    ),
    (
        Kind::Preposition,
        "in|on|over|across|under|at|vs|versus|from|compared|relative|here|overall|today|again|total|average|median|mean",
    ),
    (
        Kind::Elsewhere,
        "build|builds|rebuild|rebuilds|compile|compiles|compiling|compilation|compiler|recompile|link|linking|linker|ci|test|tests|testing|suite|clippy|lint|lints|linting|fmt|rustfmt|rustc|install|installs|download|downloads|checkout|docs|doc|documentation|clone|fetch|release|workflow|job|jobs|nextest|startup|imports|playback|animation|video|scroll|timeout|timeouts|backoff|retry|retries|poll|polling",
    ),
    (
        Kind::Other,
        "memory|ram|rss|vram|mem|size|sizes|smaller|disk|binary|binaries|image|coverage|accuracy|accurate|ppl|perplexity|recall|cache|allocations|allocation|allocs|alloc|code|lines|loc|parameters|params|vocab|vocabulary|utilization|utilisation|occupancy|sparsity|dropout|fewer|compression|resolution|zoom|quota|probability|bandwidth|warmup|battery|power|energy|retries|warnings",
    ),
    (
        Kind::Shape,
        "larger|bigger|wider|longer|deeper|wide|dispatches|passes|unroll|unrolls|unrolled|unrolling|vector|vectors|vectorized|vectorised|tile|tiles|tiling|scaling|scale|scaled|lanes|batch|batches|accumulation|oversampling|upsampling|replicas|threads|buffers",
    ),
    (
        Kind::Training,
        "training|train|trains|trainer|step|steps|end-to-end|decode|decoding|inference|forward|backward|prefill|sampling|kernel|kernels|attention|matmul|matmuls|gemm|optimizer|optimiser|adamw|pretraining|finetuning",
    ),
];

const UNITS: &[&str] = &[
    "t",
    "tk",
    "tok",
    "toks",
    "token",
    "tokens",
    "sample",
    "samples",
    "it",
    "its",
    "iter",
    "iters",
    "iteration",
    "iterations",
    "step",
    "steps",
    "example",
    "examples",
    "img",
    "imgs",
    "image",
    "images",
    "seq",
    "seqs",
    "sequence",
    "sequences",
    "batch",
    "batches",
    "flop",
    "flops",
    "gflop",
    "tflop",
    "gb",
    "gib",
    "mb",
    "mib",
    "char",
    "chars",
    "word",
    "words",
    "row",
    "rows",
    "epoch",
    "epochs",
];
const SECONDS: &[&str] = &["s", "sec", "secs", "second", "seconds", "min", "minute", "h", "hr", "hour", "day", "ms"];

/// Number words with their value; vague ones have a lower bound.
const NUMBERS: &[(&str, f64)] = &[
    ("one", 1.0),
    ("two", 2.0),
    ("three", 3.0),
    ("four", 4.0),
    ("five", 5.0),
    ("six", 6.0),
    ("seven", 7.0),
    ("eight", 8.0),
    ("nine", 9.0),
    ("ten", 10.0),
    ("eleven", 11.0),
    ("twelve", 12.0),
    ("thirteen", 13.0),
    ("fourteen", 14.0),
    ("fifteen", 15.0),
    ("sixteen", 16.0),
    ("seventeen", 17.0),
    ("eighteen", 18.0),
    ("nineteen", 19.0),
    ("twenty", 20.0),
    ("thirty", 30.0),
    ("forty", 40.0),
    ("fifty", 50.0),
    ("sixty", 60.0),
    ("seventy", 70.0),
    ("eighty", 80.0),
    ("ninety", 90.0),
    ("hundred", 100.0),
    ("hundreds", 100.0),
    ("thousand", 1000.0),
    ("few", 3.0),
    ("several", 3.0),
    ("many", 3.0),
    ("multiple", 3.0),
    ("couple", 2.0),
    ("dozen", 12.0),
    ("dozens", 12.0),
    ("digit", 10.0),
    ("digits", 10.0),
];

const SHARES: &[&str] =
    &["half", "third", "thirds", "quarter", "quarters", "fifth", "fifths", "tenth", "tenths", "sixth", "eighth"];

/// Cuts a text in plain signs into tokens.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let pieces = pieces(text);
    let mut tokens: Vec<Token> = Vec::new();
    let mut at = 0;
    while at < pieces.len() {
        let (kind, taken) = Ahead { text, pieces: &pieces[at..], before: &tokens }.classify();
        let (start, end) = (pieces[at].0, pieces[at + taken - 1].1);
        tokens.push(Token { kind, text: &text[start..end], start, end });
        at += taken;
    }
    tokens
}

/// The places of numbers, words and single signs. A word right behind a number is a piece of its own.
fn pieces(text: &str) -> Vec<(usize, usize)> {
    let is_letter = |c: char| c.is_alphabetic() || c == '_';
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let at = text.len() - rest.len();
        let length = if first.is_ascii_digit() || first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit()) {
            number_length(rest)
        } else if is_letter(first) {
            let length = rest.find(|c| !is_letter(c) && !char::is_ascii_digit(&c)).unwrap_or(rest.len());
            // `x30`, and `1.3xfaster`.
            let is_factor = first == 'x' && rest[1..].starts_with(|c: char| c.is_ascii_digit());
            let behind_number = text[..at].ends_with(|c: char| c.is_ascii_digit());
            if is_factor || first == 'x' && behind_number { 1 } else { length }
        } else {
            first.len_utf8()
        };
        if first != ' ' {
            pieces.push((at, at + length));
        }
        rest = &rest[length..];
    }
    pieces
}

/// Length of a number: digits, with points and commas between them. The letter `o` counts as a zero among digits.
fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut end = 0;
    while end < bytes.len() {
        let next_is_digit = bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
        let ends_number = matches!(bytes.get(end + 1), Some(b'%' | b'x'));
        match bytes[end] {
            b'0'..=b'9' => {}
            b'.' | b',' | b'\'' | b'_' if next_is_digit => {}
            b'o' if end > 0 && (next_is_digit || ends_number) => {}
            _ => break,
        }
        end += 1;
    }
    end.max(1)
}

/// Pieces that are not tokens yet, and the tokens before them.
struct Ahead<'t, 'a> {
    text: &'t str,
    pieces: &'a [(usize, usize)],
    before: &'a [Token<'t>],
}

impl<'t> Ahead<'t, '_> {
    fn piece(&self, index: usize) -> &'t str {
        self.pieces.get(index).map_or("", |(start, end)| &self.text[*start..*end])
    }

    /// Whether a piece ends where the next one begins.
    fn touches(&self, index: usize) -> bool {
        self.pieces.get(index + 1).is_some_and(|next| next.0 == self.pieces[index].1)
    }

    /// Whether a number comes before, with at most a hyphen in between.
    fn is_behind_number(&self) -> bool {
        match self.before {
            [.., last] if matches!(last.kind, Kind::Number(_)) => true,
            [.., last, sign] => sign.text == "-" && matches!(last.kind, Kind::Number(_)),
            _ => false,
        }
    }

    /// The kind of the next token, and how many pieces it takes.
    fn classify(&self) -> (Kind, usize) {
        let found = self.number().or_else(|| self.unit()).or_else(|| self.sign()).or_else(|| self.power());
        // The longest phrase that the lists have, with hyphens or spaces between its words.
        found.or_else(|| (1..=3).rev().find_map(|words| self.listed(words))).unwrap_or((Kind::Word, 1))
    }

    fn number(&self) -> Option<(Kind, usize)> {
        let word = self.piece(0);
        if word == "." || !word.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return None;
        }
        // `1/3`, but not `1/32`: a reader of ratios does not read those as shares of time.
        let is_share = self.piece(1) == "/"
            && self.touches(0)
            && self.touches(1)
            && self.piece(2).parse::<u8>().is_ok_and(|below| (2..=10).contains(&below));
        Some(if is_share { (Kind::Share, 3) } else { (Kind::Number(value(word)), 1) })
    }

    /// A rate, a time per unit, or `/step`.
    fn unit(&self) -> Option<(Kind, usize)> {
        let [word, second, third] = [0, 1, 2].map(|index| self.piece(index));
        if UNITS.contains(&word) {
            let is_per = second == "/" || word.len() > 2 && matches!(second, "per" | "a" | "x");
            if is_per && SECONDS.contains(&third) && !(second == "a" && third == "s") {
                return Some((Kind::Rate, 3));
            }
            if word.starts_with("tok") && SECONDS.contains(&second) {
                return Some((Kind::Rate, 2));
            }
        }
        let is_time = SECONDS.contains(&word) || matches!(word, "us" | "ns");
        if is_time && matches!(second, "/" | "per" | "a") && third.len() > 1 && UNITS.contains(&third) {
            // `5 ms/step` is a time followed by its unit; `ms/step` alone names a duration.
            return Some(if self.is_behind_number() { (Kind::Time, 1) } else { (Kind::Duration, 3) });
        }
        (word == "/" && second.len() > 1 && UNITS.contains(&second)).then_some((Kind::PerStep, 2))
    }

    fn sign(&self) -> Option<(Kind, usize)> {
        match self.piece(0) {
            word if is_word(word) => None,
            "%" => Some((Kind::Percent, 1)),
            "-" | "=" if self.piece(1) == ">" => Some((Kind::Sign('→'), 2)),
            word => Some((Kind::Sign(word.chars().next().unwrap_or(' ')), 1)),
        }
    }

    /// `k`, `m` or `g` right behind a number.
    fn power(&self) -> Option<(Kind, usize)> {
        let touches_number =
            self.before.last().is_some_and(|last| matches!(last.kind, Kind::Number(_)) && last.end == self.pieces[0].0);
        (touches_number && matches!(self.piece(0), "k" | "m" | "g")).then_some((Kind::Filler, 1))
    }

    /// The next `words` words, if a list has them as a phrase.
    fn listed(&self, words: usize) -> Option<(Kind, usize)> {
        let (phrase, taken) = self.phrase(words)?;
        let entry = WORDS.iter().find(|(_, list)| list.split('|').any(|entry| entry == phrase));
        if let Some((kind, _)) = entry
            && !self.lacks_number(*kind, &phrase)
        {
            return Some((*kind, taken));
        }
        if words > 1 {
            return None;
        }
        if let Some((_, value)) = NUMBERS.iter().find(|(name, _)| *name == phrase) {
            return Some((Kind::Number(*value), taken));
        }
        let is_counted = matches!(
            self.before.last(),
            Some(Token { kind: Kind::Number(_), .. } | Token { text: "a" | "in" | "-" | "by" | "the" | "to", .. })
        );
        let share = if is_counted || phrase == "half" { Kind::Share } else { Kind::Word };
        SHARES.contains(&&*phrase).then_some((share, taken))
    }

    /// Whether a listed word means something else because it lacks a number beside it.
    fn lacks_number(&self, kind: Kind, phrase: &str) -> bool {
        let is_behind_number = self.is_behind_number();
        match kind {
            Kind::Times if phrase == "x" => !is_behind_number && !is_number(self.piece(1)),
            Kind::Times if phrase == "fold" => !is_behind_number,
            Kind::Time => {
                let is_behind_share = matches!(self.before.last(), Some(Token { kind: Kind::Share, .. }));
                phrase.len() <= 3 && !is_behind_number && !is_behind_share
            }
            Kind::Percent => matches!(phrase, "pc" | "pp" | "bps") && !is_behind_number,
            _ => false,
        }
    }

    /// The next `words` words as one phrase, and how many pieces it takes.
    fn phrase(&self, words: usize) -> Option<(String, usize)> {
        let mut phrase = self.piece(0).to_owned();
        let mut taken = 1;
        for _ in 1..words {
            if self.piece(taken) == "-" {
                taken += 1;
            }
            if !is_word(self.piece(taken)) {
                return None;
            }
            phrase.push(' ');
            phrase.push_str(self.piece(taken));
            taken += 1;
        }
        Some((phrase, taken))
    }
}

fn is_word(piece: &str) -> bool {
    piece.starts_with(|c: char| c.is_alphabetic())
}

fn is_number(piece: &str) -> bool {
    piece.starts_with(|c: char| c.is_ascii_digit())
}

/// The value of a number, exact enough to tell more from less.
fn value(number: &str) -> f64 {
    let point = number.rfind(['.', ',']).filter(|&at| number.len() - at != 4 || number.starts_with('0'));
    let digits = |text: &str| {
        text.chars().map(|c| if c == 'o' { '0' } else { c }).filter(char::is_ascii_digit).collect::<String>()
    };
    let (whole, fraction) = point.map_or((number, ""), |at| number.split_at(at));
    format!("{}.{}", digits(whole), digits(fraction)).parse().unwrap_or(0.0)
}
