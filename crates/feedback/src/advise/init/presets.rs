//! Known trainers: the files by which a clone is recognised, and the command of a short run.
//!
//! Commands and flags were read in the trainers' sources of summer 2026. They make a run small, and turn evaluation,
//! checkpoints and sampling off where that can be done without an edit.

use std::{fs, path::Path};

use super::{Draft, data, pytorch};
use crate::{LoopError, git::Repository};

/// A known trainer. `{python}` in commands is the interpreter that has what it needs.
struct Preset {
    name: &'static str,
    /// Files that its clone has.
    files: &'static [&'static str],
    /// A word that the first of them contains.
    word: &'static str,
    build: &'static str,
    /// None: the tracked code of the top folder.
    artifacts: &'static [&'static str],
    command: &'static str,
    /// How it takes turns: through the adapter, or by the lines that it prints.
    turns: Turns,
    tokens_per_step: u64,
    /// Tracked files that it reads.
    inputs: &'static [&'static str],
    /// What the user has to see to.
    guesses: &'static [&'static str],
}

/// How a known trainer takes turns.
enum Turns {
    /// `adapter = "pytorch"`.
    Adapter,
    /// `workload.metrics`; whether it prints or writes them is part of it.
    Record(&'static str),
    /// Not without a few lines of its own.
    Edit,
}

const NOTHING: &[&str] = &[];

/// In the order in which they are tried.
const PRESETS: [Preset; 12] = [
    Preset {
        name: "nanochat",
        files: &["scripts/base_train.py", "nanochat/gpt.py"],
        word: "--num-iterations",
        build: "true",
        artifacts: &["scripts", "nanochat"],
        command: "{python} -m scripts.base_train --device-type=cpu --depth=4 --head-dim=64 --window-pattern=L \
                  --max-seq-len=512 --device-batch-size=1 --total-batch-size=512 --num-iterations={steps} \
                  --eval-every=-1 --core-metric-every=-1 --sample-every=-1 --save-every=-1 --run=dummy --model-tag=bench",
        turns: Turns::Adapter,
        tokens_per_step: 512,
        inputs: NOTHING,
        guesses: &[
            "`data`: the folder with `base_data_climbmix` and `tokenizer`; name it, and `NANOCHAT_BASE_DIR` in `environment`",
            "`workload.command`: `--device-type=cpu` is for machines without a GPU; it writes a checkpoint at its end",
        ],
    },
    Preset {
        name: "modded-nanogpt",
        files: &["train_gpt.py", "data/cached_fineweb10B.py"],
        word: "step_avg:",
        build: "true",
        artifacts: NOTHING,
        command: "env RANK=0 LOCAL_RANK=0 WORLD_SIZE=1 MASTER_ADDR=127.0.0.1 MASTER_PORT=29541 STEPS={steps} {python} train_gpt.py",
        turns: Turns::Edit,
        tokens_per_step: 131_072,
        inputs: NOTHING,
        guesses: &[
            "its optimiser is not one of PyTorch's, it prints no training loss, and its steps are constants in the source: it needs the turn protocol, a few lines (docs/turns.md), and `STEPS` from the environment",
        ],
    },
    Preset {
        name: "autoresearch",
        files: &["train.py", "prepare.py", "program.md"],
        word: "TIME_BUDGET",
        build: r#"sh -c "sed -e 's/^from prepare import .*/&; import os; TIME_BUDGET = 10**9/' -e 's/if step > 10 and total_training_time >= TIME_BUDGET:/if step >= int(os.environ[\"STEPS\"]):/' -e 's/^# Final eval/raise SystemExit  #/' train.py > bench_train.py""#,
        artifacts: &["bench_train.py", "prepare.py"],
        command: "env STEPS={steps} {python} bench_train.py",
        turns: Turns::Adapter,
        tokens_per_step: 524_288,
        inputs: NOTHING,
        guesses: &[
            "`build.command`: it trains for a time, not for steps, and its learning rate follows the clock; the build makes a copy that stops after `STEPS` steps and keeps the rate",
            "`data`: `~/.cache/autoresearch`, which `prepare.py` fills; it trains on CUDA alone",
        ],
    },
    Preset {
        name: "llm.c",
        files: &["train_gpt2.c", "llmc/dataloader.h"],
        word: "step <= 40",
        build: r#"sh -c "sed -e 's/step <= 40/step < atoi(getenv(\"STEPS\"))/' -e 's/step % 10 == 0/0/' -e 's/step % 20 == 0/0/' train_gpt2.c > bench_gpt2.c && make bench_gpt2""#,
        artifacts: &["bench_gpt2"],
        command: "env STEPS={steps} ./bench_gpt2",
        turns: Turns::Record("{ format = \"llm.c-cpu\" }"),
        tokens_per_step: 256,
        inputs: NOTHING,
        guesses: &[
            "`data`: `gpt2_124M.bin` and `dev/data/tinyshakespeare`; README.md says how they are made",
            "`build.command`: its steps are a constant; the build makes a copy that takes them from `STEPS`, without evaluation",
        ],
    },
    Preset {
        name: "llm.c-cuda",
        files: &["train_gpt2.cu", "llmc/dataloader.h"],
        word: "norm %6.4f",
        build: "make train_gpt2cu",
        artifacts: &["train_gpt2cu"],
        command: "./train_gpt2cu -e d6 -b 4 -t 1024 -x {steps} -v 1000000 -m 1 -s 0 -h 0 -n 0",
        turns: Turns::Record("{ format = \"llm.c\" }"),
        tokens_per_step: 4_096,
        inputs: NOTHING,
        guesses: &[
            "`data`: `dev/data/tinyshakespeare`",
            "`workload.sharing`: step lines are not enough on a GPU; `include/alpha_turns.h` is five lines",
        ],
    },
    Preset {
        name: "llm.c-python",
        files: &["train_gpt2.py", "llmc/dataloader.h"],
        word: "--num_iterations",
        build: "true",
        artifacts: &["train_gpt2.py"],
        command: "{python} train_gpt2.py --device=cpu --model=d12 --input_bin=dev/data/tinyshakespeare/tiny_shakespeare_train.bin \
                  --batch_size=4 --sequence_length=64 --total_batch_size=256 --num_iterations={steps} --write_tensors=0 \
                  --overfit_single_batch=0 --val_loss_every=0 --sample_every=0",
        turns: Turns::Adapter,
        tokens_per_step: 256,
        inputs: NOTHING,
        guesses: &[
            "`data`: `dev/data/tinyshakespeare`, and a folder for `TIKTOKEN_CACHE_DIR` in `environment`: it asks for a tokenizer at its start",
        ],
    },
    Preset {
        name: "torchtitan",
        files: &["torchtitan/config/configs.py", "torchtitan/train.py"],
        word: "num_tokens_per_microbatch_per_dp_rank",
        build: "true",
        artifacts: &["torchtitan"],
        command: "env RANK=0 LOCAL_RANK=0 WORLD_SIZE=1 MASTER_ADDR=127.0.0.1 MASTER_PORT=29542 {python} -m torchtitan.train \
                  --module llama3 --config llama3_debugmodel --training.steps {steps} \
                  --training.num_tokens_per_microbatch_per_dp_rank 2048 --training.max_context_length 256 \
                  --training.disable_cuda_graphs --metrics.log_freq 1 --metrics.disable_color_printing --debug.seed {seed} \
                  --debug.no-enable_structured_logging --comm.trace_buf_size=0 --dump_folder run",
        turns: Turns::Adapter,
        tokens_per_step: 2_048,
        inputs: &["tests/assets"],
        guesses: &[
            "`workload.command`: it needs a GPU; with CUDA graphs, its default, the adapter does not see the steps",
        ],
    },
    Preset {
        name: "litgpt",
        files: &["litgpt/pretrain.py", "litgpt/__main__.py"],
        word: "max_tokens",
        build: "true",
        artifacts: &["litgpt"],
        command: "{python} -m litgpt pretrain pythia-14m --precision 32-true --devices 1 --out_dir run --data TextFiles \
                  --data.train_data_path custom_texts --data.num_workers 1 --tokenizer_dir checkpoints/EleutherAI/pythia-14m \
                  --train.max_seq_length 500 --train.micro_batch_size 2 --train.global_batch_size 2 --train.max_tokens {steps}000 \
                  --train.log_interval 1 --train.save_interval 1000000 --train.lr_warmup_steps 0 --eval.interval 1000000 \
                  --eval.max_iters 1 --eval.initial_validation false --eval.final_validation false --logger_name csv --seed {seed}",
        turns: Turns::Adapter,
        tokens_per_step: 1_000,
        inputs: NOTHING,
        guesses: &[
            "`data`: `custom_texts` with two or more texts, and the tokenizer below `checkpoints`",
            "`workload.command`: `pretrain` counts tokens and not steps: a thousand tokens a step make one of the other",
        ],
    },
    Preset {
        name: "megatron",
        files: &["pretrain_gpt.py", "megatron/training/training.py"],
        word: "megatron",
        build: "true",
        artifacts: &["pretrain_gpt.py", "gpt_builders.py", "model_provider.py", "megatron"],
        command: "env CUDA_DEVICE_MAX_CONNECTIONS=1 RANK=0 LOCAL_RANK=0 WORLD_SIZE=1 MASTER_ADDR=127.0.0.1 MASTER_PORT=29543 \
                  {python} pretrain_gpt.py --num-layers 2 --hidden-size 128 --num-attention-heads 4 --seq-length 128 \
                  --max-position-embeddings 128 --micro-batch-size 4 --global-batch-size 4 --train-iters {steps} --lr 1e-4 \
                  --min-lr 1e-5 --mock-data --split 949,50,1 --tokenizer-type NullTokenizer --vocab-size 8192 \
                  --transformer-impl local --no-persist-layer-norm --no-gradient-accumulation-fusion \
                  --distributed-backend nccl --eval-iters 0 --log-interval 1 --seed {seed}",
        turns: Turns::Adapter,
        tokens_per_step: 512,
        inputs: NOTHING,
        guesses: &["`workload.command`: it needs a GPU; the sizes of the model and of a batch"],
    },
    Preset {
        name: "mlx-lm",
        files: &["mlx_lm/lora.py", "mlx_lm/tuner/trainer.py"],
        word: "steps-per-report",
        build: "true",
        artifacts: &["mlx_lm"],
        command: "{python} -m mlx_lm lora --train --model model --data data --fine-tune-type lora --num-layers 4 --batch-size 1 \
                  --max-seq-length 256 --iters {steps} --steps-per-report 1 --steps-per-eval 1000000 --val-batches 1 \
                  --save-every 1000000 --adapter-path run --seed {seed}",
        turns: Turns::Record("{ format = \"mlx-lm\" }"),
        tokens_per_step: 256,
        inputs: NOTHING,
        guesses: &[
            "`data`: the folder of the model, and `data` with `train.jsonl`",
            "`workload.sharing`: step lines are not enough on a GPU; the turn protocol is a few lines (docs/turns.md)",
        ],
    },
    Preset {
        name: "maxtext",
        files: &["src/maxtext/trainers/pre_train/train.py", "src/maxtext/configs/base.yml"],
        word: "maxtext",
        build: "true",
        artifacts: &["src"],
        command: "env PYTHONPATH=src JAX_PLATFORMS=cpu DECOUPLE_GCLOUD=TRUE {python} -m maxtext.trainers.pre_train.train \
                  src/maxtext/configs/base.yml run_name=bench base_output_directory=run hardware=cpu \
                  skip_jax_distributed_system=true dataset_type=synthetic base_emb_dim=64 base_num_query_heads=4 \
                  base_num_kv_heads=4 base_mlp_dim=128 base_num_decoder_layers=2 head_dim=16 vocab_size=512 \
                  attention=dot_product per_device_batch_size=2 max_target_length=128 dtype=float32 steps={steps} \
                  enable_checkpointing=false enable_tensorboard=false eval_interval=-1 log_config=false \
                  init_weights_seed={seed} metrics_file=metrics.jsonl",
        turns: Turns::Record(
            "{ format = \"jsonl\", file = \"metrics.jsonl\", keys = { loss = \"learning/loss\", grad_norm = \"learning/grad_norm\" } }\nstep_line = \"maxtext\"",
        ),
        tokens_per_step: 256,
        inputs: NOTHING,
        guesses: &["`workload.command`: it is for a CPU; the line of a step is printed when the next one has begun"],
    },
    Preset {
        name: "huggingface",
        files: &["run_clm.py"],
        word: "HfArgumentParser",
        build: "true",
        artifacts: &["run_clm.py"],
        command: "{python} run_clm.py --model_type gpt2 --config_overrides n_layer=2,n_head=2,n_embd=64 --tokenizer_name tokenizer \
                  --train_file data/train.txt --validation_file data/val.txt --block_size 128 --do_train \
                  --per_device_train_batch_size 4 --max_steps {steps} --logging_steps 1 --logging_nan_inf_filter false \
                  --save_strategy no --eval_strategy no --report_to none --disable_tqdm true --seed {seed} --output_dir run",
        turns: Turns::Adapter,
        tokens_per_step: 512,
        inputs: NOTHING,
        guesses: &["`workload.command`, `data`: the model, the tokenizer's folder and the texts"],
    },
];

/// The names of all.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    ["nanogpt"].into_iter().chain(PRESETS.iter().map(|preset| preset.name))
}

/// The draft for the trainer with this name, else for the one that the repository looks like. nanoGPT, whose data and
/// settings are looked for, is one of `pytorch.rs`.
pub(super) fn describe(repository: &Repository, name: Option<&str>) -> Result<Option<Draft>, LoopError> {
    let root = repository.root();
    let is_it = |preset: &&Preset| match name {
        Some(name) => preset.name == name,
        None => preset.is_in(root),
    };
    let Some(preset) = PRESETS.iter().find(is_it) else { return Ok(None) };
    let mut draft = Draft {
        kind: preset.name,
        build: preset.build.to_owned(),
        artifacts: preset.artifacts.iter().map(|name| (*name).to_owned()).collect(),
        steps: 30,
        tokens_per_step: preset.tokens_per_step,
        inputs: preset.inputs.iter().map(|name| (*name).to_owned()).collect(),
        guesses: preset.guesses.iter().map(|guess| (*guess).to_owned()).collect(),
        ..Draft::default()
    };
    if draft.artifacts.is_empty() {
        draft.artifacts = pytorch::code(repository)?;
    }
    if preset.command.contains("{python}") {
        let python = pytorch::python(root, &mut draft);
        draft.command = preset.command.replace("{python}", &python);
        draft.toolchain = vec![pytorch::toolchain(&python)];
        draft.data = data::ignored_data(&repository.ignored()?).iter().map(|path| path.display().to_string()).collect();
    } else {
        preset.command.clone_into(&mut draft.command);
        draft.toolchain = vec!["cc --version".to_owned()];
        let ignored = data::ignored_beside_builds(&repository.ignored()?);
        draft.data = ignored.iter().map(|path| path.display().to_string()).collect();
    }
    match preset.turns {
        Turns::Adapter => draft.adapter = Some("pytorch"),
        Turns::Record(metrics) => draft.metrics = Some(metrics.to_owned()),
        Turns::Edit => draft.needs_edit = true,
    }
    Ok(Some(draft))
}

impl Preset {
    fn is_in(&self, root: &Path) -> bool {
        let contains = |name: &str| fs::read_to_string(root.join(name)).is_ok_and(|text| text.contains(self.word));
        self.files.iter().all(|name| root.join(name).is_file()) && contains(self.files[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        advise::init::{Request, init, tests::repository},
        config::{LoopConfig, metrics::Form},
    };
    use pairbench::progress::Quiet;

    #[test]
    fn clones_are_recognised_and_get_a_file_that_can_be_read() {
        for preset in &PRESETS {
            let files: Vec<(&str, &str)> =
                preset.files.iter().chain(preset.inputs).map(|name| (*name, preset.word)).collect();
            let (folder, repository) = repository(&files);
            for request in [Request::default(), Request { preset: Some(preset.name.to_owned()), ..Request::default() }]
            {
                let made = init(&repository, &request, &Quiet).unwrap();
                assert_eq!(made.kind, preset.name);
                let config = LoopConfig::parse(&made.text, None).unwrap();
                assert!(config.workload.command.contains("{steps}") && !made.text.contains("{python}"));
                assert!(!config.build.artifacts.is_empty() && !made.guesses.is_empty());
                // The record is of this trainer, and turns are as it can take them.
                match preset.turns {
                    Turns::Adapter => assert!(config.workload.adapter.is_some()),
                    Turns::Record(_) => {
                        assert!(config.workload.metrics.form != Form::Rows && config.workload.step_form().is_some());
                    }
                    Turns::Edit => assert!(made.text.contains("sharing = \"turns\"")),
                }
                std::fs::remove_file(folder.path().join("loop.toml")).unwrap();
            }
        }
    }

    #[test]
    fn other_repositories_are_not_taken_for_known_ones() {
        // Files of the same names with other words.
        let files: Vec<(&str, &str)> = PRESETS.iter().flat_map(|preset| preset.files).map(|name| (*name, "")).collect();
        let (_folder, repository) = repository(&files);
        assert!(describe(&repository, None).unwrap().is_none());
    }
}
