"""The engine against one job at a time, and against what the bare network gains by batches.

    pip install diffusers matplotlib && OMP_NUM_THREADS=1 python benchmarks/engine/bench_engine.py [part ...]

The parts are overhead, unet32, unet64, load and image. Each writes its numbers to benchmarks/engine/results.json;
`document.py` makes docs/engine.md's table and picture of them. Contenders take turns within one run.
"""

from __future__ import annotations

import json
import os
import platform
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
HOME = Path(tempfile.mkdtemp(prefix="perrin-bench-"))
os.environ["PERRIN_HOME"] = str(HOME)
sys.path.insert(0, str(HERE))

import plugin  # noqa: E402
import torch  # noqa: E402
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, HeunDiscreteScheduler  # noqa: E402

from perrin.engine import Engine, Failed, Finished, Request  # noqa: E402
from perrin.engine.cost import Curve  # noqa: E402

CUDA = torch.cuda.is_available()
now = time.perf_counter if CUDA or torch.get_num_threads() > 1 else time.process_time
"""On one thread, its own CPU time: the machine may be shared. Waiting is done by spinning, so it counts."""

RESULTS = HERE / "results.json"
SAMPLERS = {
    "ddim": DDIMScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
    "ddpm": DDPMScheduler,
    "heun": HeunDiscreteScheduler,
}
Spec = dict[str, Any]


def main() -> None:
    """Run the parts that are named, or all."""
    parts: dict[str, Callable[[], Spec]] = {
        "overhead": overhead,
        "unet32": lambda: mixed(32, 1),
        "unet64": lambda: mixed(64, 5),
        "load": load,
        "image": image,
    }
    for name in sys.argv[1:] or parts:
        found = {
            "threads": torch.get_num_threads(),
            "seconds_are": now.__name__,
            "machine": platform.processor() or platform.machine(),
        }
        found |= parts[name]()
        print(name, json.dumps(found, indent=1))
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps({**known, name: found}, indent=1) + "\n")


def drain(
    engine: Engine, arrivals: Sequence[tuple[float, Request]] = (), after: Callable[[], float] = lambda: 0.0
) -> dict[str, Any]:
    """Tick until all is done; requests arrive when ``after()`` has passed their moment. Ends by id."""
    ends: dict[str, Any] = {}
    waiting = list(arrivals)
    while waiting or engine.active:
        while waiting and after() >= waiting[0][0]:
            engine.admit(waiting.pop(0)[1])
        for event in engine.tick():
            if isinstance(event, Finished | Failed):
                assert isinstance(event, Finished), event
                ends[event.id] = (event.results, now())
    return ends


# --- overhead ---------------------------------------------------------------------------------------------------------


def overhead(requests: int = 10_000, steps: int = 20) -> Spec:
    """A model that does nothing: what is left is the platform's own."""
    plugin.install(HOME, "nothing")

    def specs(count: int) -> list[Spec]:
        return [{"seed": n, "steps": steps, "sampler": ("ddim", "dpmpp_2m")[n % 2]} for n in range(count)]

    def in_engine(wanted: list[Spec], engine: Engine) -> float:
        began = now()
        waiting, number, engine_done = iter(wanted), 0, False
        while not engine_done:
            while engine.free and (values := next(waiting, None)) is not None:
                engine.admit(Request(f"r-{number}", "bench", values, "bin", owner=str(number % 7)))
                number += 1
            engine.tick()
            engine_done = not engine.active and engine.free == engine.capacity and number == len(wanted)
        return now() - began

    def each_alone(wanted: list[Spec]) -> float:
        runtime = plugin.NothingRuntime()
        began = now()
        for values in wanted:
            run = runtime.start(plugin.BenchParameters(**values))
            run.run()
        return now() - began

    def megabytes() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    engine = Engine(capacity=32)
    in_engine(specs(500), engine)
    each_alone(specs(500))
    before = megabytes()
    rows = requests * steps
    shares = [in_engine(specs(requests // 4), engine) for _ in range(2)]
    alone = [each_alone(specs(requests // 4)) for _ in range(2)]
    shares += [in_engine(specs(requests // 4), engine) for _ in range(2)]
    alone += [each_alone(specs(requests // 4)) for _ in range(2)]
    return {
        "requests": requests,
        "steps": steps,
        "microseconds_per_request_step": sum(shares) / rows * 1e6,
        "of_which_sampling_loop_alone": sum(alone) / rows * 1e6,
        "peak_memory_growth_mib": megabytes() - before,
    }


# --- mixed requests ---------------------------------------------------------------------------------------------------


def specs_of(size: int, shorter: int, count: int = 32) -> list[Spec]:
    """Four samplers, 10 to 50 steps (over ``shorter``), guidance on and off."""
    draw = random.Random(1)
    return [
        {
            "seed": n,
            "size": size,
            "sampler": list(SAMPLERS)[n % 4],
            "steps": max(2, draw.randint(10, 50) // shorter // (2 if n % 4 == 3 else 1)),
            "guidance": (1.0, 3.0)[n // 4 % 2],
            "label": 1 + n % 9,
        }
        for n in range(count)
    ]


def bare(network: Callable[[int], object], sizes: Sequence[int], rounds: int) -> dict[int, float]:
    """Median seconds of a network call by its number of samples; the sizes take turns."""
    seen: dict[int, list[float]] = {size: [] for size in sizes}
    for size in sizes:
        network(size)
    for _ in range(rounds):
        for size in sizes:
            began = now()
            network(size)
            seen[size].append(now() - began)
    return {size: statistics.median(times) for size, times in seen.items()}


def mixed(size: int, shorter: int, rounds: int = 3) -> Spec:
    """32 unlike requests that arrive over time: together, one by one, and through diffusers one by one."""
    plugin.install(HOME, "unet")
    wanted = specs_of(size, shorter)
    unet = plugin.make_unet()

    @torch.inference_mode()
    def call(samples: int) -> None:
        label = torch.ones(samples, dtype=torch.long)
        unet(torch.zeros(samples, 3, size, size), torch.ones(samples), class_labels=label)

    @torch.inference_mode()
    def diffusers(values: Spec) -> None:
        scheduler = SAMPLERS[values["sampler"]](beta_schedule="linear")
        scheduler.set_timesteps(values["steps"])
        x = torch.randn(1, 3, size, size) * scheduler.init_noise_sigma
        pair = values["guidance"] != 1.0
        label = torch.tensor([0, values["label"]] if pair else [values["label"]])
        for t in scheduler.timesteps:
            put = scheduler.scale_model_input(torch.cat([x, x]) if pair else x, t)
            out = unet(put, t, class_labels=label).sample
            if pair:
                null, told = out.chunk(2)
                out = null + values["guidance"] * (told - null)
            x = scheduler.step(out, t, x).prev_sample

    def request(n: int) -> Request:
        return Request(f"r-{n}", "bench", wanted[n], "bin", owner=str(n % 5))

    def together(engine: Engine) -> tuple[float, dict[str, Any]]:
        moments = [(n * seconds_one / 3 / len(wanted), request(n)) for n in range(len(wanted))]  # within a third of it
        began = now()
        ends = drain(engine, moments, lambda: now() - began)
        return now() - began, ends

    def one_by_one(engine: Engine) -> tuple[float, dict[str, Any]]:
        ends: dict[str, Any] = {}
        began = now()
        for n in range(len(wanted)):
            engine.admit(request(n))
            ends |= drain(engine)
        return now() - began, ends

    def theirs() -> float:
        began = now()
        for values in wanted:
            diffusers(values)
        return now() - began

    engine, single = Engine(capacity=32), Engine(capacity=1, clock=now)
    for warm in (engine, single):
        warm.admit(Request("warm", "bench", {"seed": 0, "steps": 2, "size": size}, "bin"))
        drain(warm)
    diffusers(wanted[0] | {"steps": 2})
    plugin.UnetRuntime.sizes.clear()
    seconds_one, ends_one = one_by_one(single)
    alone_sizes = [*plugin.UnetRuntime.sizes]
    plugin.UnetRuntime.sizes.clear()
    times: dict[str, list[float]] = {"together": [], "one": [seconds_one], "diffusers": []}
    curves = []
    counts: list[int] = []
    worst = 0.0
    for _ in range(rounds):
        curves.append(bare(call, [1, 2, 4, 8, 16, 24, 32, 48], 3 if size > 32 else 5))
        plugin.UnetRuntime.sizes.clear()
        seconds, ends = together(engine)
        counts = [*plugin.UnetRuntime.sizes]
        times["together"].append(seconds)
        for n, (results, _) in ends.items():
            (result,), (alone,) = results, ends_one[n][0]
            worst = max(worst, float((result - alone).abs().max() / alone.abs().max()))
        times["diffusers"].append(theirs())
        if len(times["one"]) < rounds:
            times["one"].append(one_by_one(single)[0])
    curve = {b: statistics.median(c[b] for c in curves) for b in curves[0]}
    bare_curve = Curve()
    for b, seconds in curve.items():
        for _ in range(3):
            bare_curve.note(b, seconds)
    gain_bare = sum(map(bare_curve.seconds, alone_sizes)) / sum(map(bare_curve.seconds, counts))
    best = {name: statistics.median(found) for name, found in times.items()}
    return {
        "size": size,
        "requests": len(wanted),
        "evaluations": sum(alone_sizes),
        "mean_batch": sum(counts) / len(counts),
        "bare_milliseconds": {b: round(s * 1000, 2) for b, s in curve.items()},
        "bare_gain": {b: round(b * curve[1] / s, 3) for b, s in curve.items()},
        "seconds": {name: [round(s, 2) for s in found] for name, found in times.items()},
        "gain": best["one"] / best["together"],
        "gain_over_diffusers": best["diffusers"] / best["together"],
        "gain_of_the_bare_network_at_these_sizes": gain_bare,
        "part_of_that_gain": best["one"] / best["together"] / gain_bare,
        "largest_difference_from_alone_relative_to_largest_value": worst,
    }


# --- load -------------------------------------------------------------------------------------------------------------


def load(count: int = 40, steps: int = 10, size: int = 16) -> Spec:
    """Throughput and latency while requests arrive at random: one in flight at a time, and continuous batching."""
    plugin.install(HOME, "unet")

    def request(n: int) -> Request:
        values = {
            "seed": n,
            "steps": steps,
            "size": size,
            "sampler": list(SAMPLERS)[n % 3],
            "guidance": (1.0, 3.0)[n % 2],
        }
        return Request(f"r-{n}", "bench", values, "bin")

    engines = {"batched": Engine(capacity=32), "one at a time": Engine(capacity=1, clock=now)}
    for engine in engines.values():
        for n in range(16):
            engine.admit(request(n))
        drain(engine)
    began = now()
    for n in range(count):
        engines["one at a time"].admit(request(n))
    drain(engines["one at a time"])
    capacity = count / (now() - began)
    points = []
    for factor in (0.4, 0.7, 1.0, 1.3, 1.7, 2.2):
        for name, engine in engines.items():
            draw, moment = random.Random(7), 0.0
            arrivals = []
            for n in range(count):
                moment += draw.expovariate(capacity * factor)
                arrivals.append((moment, request(n)))
            start = now()
            ends = drain(engine, arrivals, lambda start=start: now() - start)  # type: ignore[misc]
            waits = sorted(ends[r.id][1] - start - at for at, r in arrivals)
            points.append(
                {
                    "engine": name,
                    "load": factor,
                    "throughput": count / (max(end for _, end in ends.values()) - start),
                    "latency_mean": statistics.mean(waits),
                    "latency_p90": waits[int(0.9 * count)],
                }
            )
    return {"size": size, "steps": steps, "requests": count, "one_at_a_time_per_second": capacity, "points": points}


# --- the shipped model ------------------------------------------------------------------------------------------------


def image(count: int = 32, rounds: int = 2) -> Spec:
    """emoji-64: prompts of 16 people, together and one by one."""
    device = "cuda:0" if CUDA else "cpu"
    things = ["a red apple", "a cat", "a house", "the sun", "a blue fish", "a tree", "a rocket", "a smiling face"]

    def request(n: int) -> Request:
        steps, sampler = (8, 12, 16, 20)[n % 4], ("ddim", "dpmpp_2m", "flow_euler", "heun")[n // 4 % 4]
        values = {
            "prompt": things[n % 8],
            "seed": n,
            "steps": steps // (2 if sampler == "heun" else 1),
            "sampler": sampler,
        }
        return Request(f"r-{n}", "image", values | {"guidance": (1.0, 4.0)[n % 2]}, "png")

    def run(engine: Engine, at_once: int) -> tuple[float, dict[str, Any]]:
        began, ends = now(), {}
        for first in range(0, count, at_once):
            for n in range(first, first + at_once):
                engine.admit(request(n))
            ends |= drain(engine)
        return now() - began, ends

    together, single = Engine(device, capacity=32), Engine(device, capacity=1, clock=now)
    run(together, count)
    times: dict[str, list[float]] = {"together": [], "one": []}
    worst = 0.0
    for _ in range(rounds):
        one, ends_one = run(single, 1)
        many, ends = run(together, count)
        times["one"].append(one)
        times["together"].append(many)
        worst = max(worst, max(abs(ends[n][0][0].astype(int) - ends_one[n][0][0].astype(int)).max() for n in ends))
    best = {name: statistics.median(found) for name, found in times.items()}
    curve = {b: round(s * 1000, 2) for found in together.curves.values() for b, s in found[0].items()}
    return {
        "device": device,
        "requests": count,
        "seconds": {name: [round(s, 2) for s in found] for name, found in times.items()},
        "gain": best["one"] / best["together"],
        "pictures_per_second": count / best["together"],
        "milliseconds_by_batch": curve,
        "largest_difference_of_256": int(worst),
    }


if __name__ == "__main__":
    main()
