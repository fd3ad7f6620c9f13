//! `trace.json`: Chrome's trace event format, which Perfetto opens. Complete events (`"ph":"X"`)
//! with times in microseconds, one track a thread, categories by phase.

use std::io::{self, Write};

use serde::Serialize;

use super::{Event, EventKind, Tracer, phase_name};

#[derive(Serialize)]
struct Args {
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<u32>,
    flops: u64,
    bytes: u64,
}

pub(super) fn write(out: &mut dyn Write, tracer: &Tracer) -> io::Result<()> {
    out.write_all(b"{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n")?;
    write_metadata(out, "process_name", 0, "alpha train")?;
    let threads = events(tracer).map(|event| event.thread + 1).max().unwrap_or(1);
    for thread in 0..threads {
        let name = match thread {
            0 if tracer.has_device => "host".into(),
            0 => "main".into(),
            _ if tracer.has_device => "device".into(),
            _ => format!("worker {thread}"),
        };
        out.write_all(b",\n")?;
        write_metadata(out, "thread_name", thread, &name)?;
    }
    for event in &tracer.head {
        write_event(out, tracer, event)?;
    }
    if tracer.dropped > 0 {
        let at = tracer.head.last().map_or(0, |event| event.end_ns);
        write!(
            out,
            ",\n{{\"name\":\"{} events left out here\",\"cat\":\"trace\",\"ph\":\"i\",\"s\":\"g\",\"ts\":{},\
             \"pid\":1,\"tid\":0}}",
            tracer.dropped,
            Micros(at)
        )?;
    }
    for event in &tracer.tail {
        write_event(out, tracer, event)?;
    }
    out.write_all(b"\n]}\n")
}

fn events(tracer: &Tracer) -> impl Iterator<Item = &Event> {
    tracer.head.iter().chain(&tracer.tail)
}

fn write_metadata(out: &mut dyn Write, kind: &str, thread: u32, name: &str) -> io::Result<()> {
    write!(out, "{{\"name\":\"{kind}\",\"ph\":\"M\",\"pid\":1,\"tid\":{thread},\"args\":{{\"name\":\"{name}\"}}}}")
}

fn write_event(out: &mut dyn Write, tracer: &Tracer, event: &Event) -> io::Result<()> {
    let times = format_args!(
        "\"ph\":\"X\",\"ts\":{},\"dur\":{},\"pid\":1,\"tid\":{}",
        Micros(event.start_ns),
        Micros(event.end_ns.saturating_sub(event.start_ns)),
        event.thread
    )
    .to_string();
    match event.kind {
        EventKind::Step(step) => write!(out, ",\n{{\"name\":\"step {step}\",\"cat\":\"step\",{times}}}"),
        EventKind::Data => write!(out, ",\n{{\"name\":\"data\",\"cat\":\"data\",{times}}}"),
        EventKind::Op(op) => {
            let op = &tracer.ops[op as usize];
            let args = serde_json::to_string(&Args { layer: op.layer, flops: op.flops, bytes: op.bytes })?;
            let (name, phase) = (op.name, phase_name(op.phase));
            write!(out, ",\n{{\"name\":\"{name}\",\"cat\":\"{phase}\",{times},\"args\":{args}}}")
        }
    }
}

/// Nanoseconds as microseconds with three decimals, exactly.
struct Micros(u64);

impl std::fmt::Display for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}
