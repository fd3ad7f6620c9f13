//! A pair whose trainers are alive at once: one runs its turn while all processes of the other are stopped.

use std::{path::Path, time::Instant};

use super::{PairRequest, PairRun, TurnTime, Void, pause, running::RunningTrainer, void_by_orphan};
use crate::{
    Arm, LoopError, Progress,
    gpu::{self, Gpus},
    pair::{schedule::Action, turns::SocketFolder},
    process::{ReapOrphansOnDrop, cpu_usage::CpuUsage, stillness::Stillness},
};

/// Both trainers and how they used the processors; arrays are by [`Arm::index`].
struct InTurns<'a> {
    request: &'a PairRequest<'a>,
    progress: &'a dyn Progress,
    trainers: [RunningTrainer; 2],
    still: [Stillness; 2],
    usage: [CpuUsage; 2],
    turns_s: f64,
}

pub(super) fn run(request: &PairRequest<'_>, progress: &dyn Progress) -> Result<PairRun, LoopError> {
    let started = Instant::now();
    let reaper = ReapOrphansOnDrop::new(&request.specs[0].isolation)?;
    let sockets = SocketFolder::create()?;
    let mut pair = InTurns::start(request, &sockets, progress)?;
    for (number, action) in request.script.0.iter().enumerate() {
        pair.both(number, *action)?;
    }
    let void = pair.disturbance();
    let void = void.or(pair.finish()?);
    let void = void.or_else(|| void_by_orphan(&reaper, &pair.trainers.each_ref().map(RunningTrainer::traces)));
    for (arm, trainer) in Arm::BOTH.into_iter().zip(&pair.trainers) {
        trainer.run.check_blocks(arm)?;
    }
    Ok(PairRun {
        arms: pair.trainers.map(|trainer| trainer.run),
        seed: request.seed(),
        baseline_first: request.order()[0] == Arm::Baseline,
        void,
        seconds: started.elapsed().as_secs_f64(),
        turns_s: pair.turns_s,
    })
}

impl<'a> InTurns<'a> {
    /// Starts both, one after the other, and stops them.
    fn start(
        request: &'a PairRequest<'a>,
        sockets: &SocketFolder,
        progress: &'a dyn Progress,
    ) -> Result<InTurns<'a>, LoopError> {
        let order = request.order();
        let mut trainers = Vec::with_capacity(2);
        for (place, arm) in order.into_iter().enumerate() {
            let mut trainer = RunningTrainer::start(request, arm, place, sockets, progress)?;
            trainer.process.find_family();
            trainer.stop()?;
            trainers.push(trainer);
        }
        if order[0] == Arm::Candidate {
            trainers.swap(0, 1);
        }
        let trainers = trainers.try_into().map_err(|_| LoopError::failed("a pair has two trainers"))?;
        let (still, usage) = ([Stillness::default(); 2], [CpuUsage::default(); 2]);
        Ok(InTurns { request, progress, trainers, still, usage, turns_s: 0.0 })
    }

    /// Has both arms do one action of the script, in an order that a coin decides.
    fn both(&mut self, number: usize, action: Action) -> Result<(), LoopError> {
        let is_last_but_one = number + 2 == self.request.script.0.len();
        let mut done = [0, 0];
        for arm in self.request.block_order(number) {
            let (own, waiting) = (arm.index(), arm.other().index());
            let waiting_before = self.trainers[waiting].process.cpu_ns();
            match action {
                Action::Save => self.trainers[own].save(self.progress)?,
                Action::Go { steps, block } => done[own] = self.turn(arm, steps, block)?,
            }
            let trainer = &mut self.trainers[own];
            trainer.stop()?;
            if let (Action::Go { block: Some(_), .. }, Some(gpus)) = (action, Gpus::of_this_machine()) {
                trainer.run.gpus.extend(gpus.sample());
            }
            if is_last_but_one {
                // A quick trainer may be gone before the end of its last turn is seen.
                trainer.run.peak_memory_bytes = trainer.process.peak_memory_bytes();
            }
            // The processor time of a process that has ended can no longer be read.
            self.still[waiting].add_turn(&self.trainers[waiting].process, waiting_before);
        }
        if done[0] != done[1] {
            let why = format!("said `done {}` where the baseline had said `done {}`", done[1], done[0]);
            return Err(LoopError::refused(format!("the candidate {why}")));
        }
        Ok(())
    }

    /// A turn of one arm; returns the steps that it has done since its run began.
    fn turn(&mut self, arm: Arm, steps: u64, block: Option<usize>) -> Result<u64, LoopError> {
        let trainer = &mut self.trainers[arm.index()];
        let mut done = 0;
        // The other arm's turn has filled the caches: the first step of a block refills them and is not timed.
        let refresh = u64::from(block.is_some() && steps > 1);
        for (steps, block, is_last) in [(refresh, None, false), (steps - refresh, block, true)] {
            if steps == 0 {
                continue;
            }
            let before = CpuUsage::now(&trainer.process);
            let (own_ms, steps_done) = trainer.run_steps(steps, self.progress)?;
            let slowed = self.request.slowed.filter(|(slowed, _)| *slowed == arm);
            let delay_ms = match slowed {
                Some((_, share)) if is_last || trainer.waits() => {
                    trainer.hold()?;
                    pause(own_ms * share)
                }
                // It would go on meanwhile; a stop here would be a cost that the other arm does not have.
                Some(_) | None => 0.0,
            };
            let ms = own_ms + delay_ms;
            done = steps_done;
            self.turns_s += ms / 1e3;
            trainer.run.turns.push(TurnTime { block, ms, delay_ms });
            self.usage[arm.index()] += before.until(&trainer.process, ms);
        }
        Ok(done)
    }

    /// What an arm did during the other's turns, or against the protocol, that makes the pair void.
    fn disturbance(&mut self) -> Option<Void> {
        let mut void = None;
        for arm in Arm::BOTH {
            let trainer = &mut self.trainers[arm.index()];
            let found = if let Some(breach) = self.still[arm.index()].breach(self.turns_s * 1e3) {
                Some(breach)
            } else if trainer.process.find_family() {
                Some("has a process that left its process group".to_owned())
            } else {
                trainer.disturbance().map(str::to_owned)
            };
            void = void.or(found.map(|why| Void { arm, why }));
            trainer.run.foreign_cpu_share = self.usage[arm.index()].foreign_share();
        }
        void.or_else(|| self.disturbed_gpu())
    }

    /// What happened to a card in the turns of one arm alone.
    fn disturbed_gpu(&self) -> Option<Void> {
        let samples = self.trainers.each_ref().map(|trainer| trainer.run.gpus.as_slice());
        let is_known = |pid: u32| {
            // In a container the driver counts processes otherwise than this system does.
            let is_own = self.trainers.iter().any(|trainer| trainer.process.owns(pid as i32));
            is_own || !Path::new(&format!("/proc/{pid}")).exists()
        };
        gpu::disturbance(samples, is_known).map(|(arm, why)| Void { arm, why })
    }

    /// Lets both end; a process that one leaves behind makes the pair void.
    fn finish(&mut self) -> Result<Option<Void>, LoopError> {
        let mut void = None;
        for arm in self.request.order() {
            let trainer = &mut self.trainers[arm.index()];
            trainer.finish(self.progress)?;
            if let Some(name) = trainer.process.survivor() {
                let why = format!("left a process behind (`{name}`), which was ended");
                void = void.or(Some(Void { arm, why }));
            }
        }
        Ok(void)
    }
}
