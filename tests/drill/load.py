"""The load of a drill: writers of data sets, and a generator of jobs and tagging runs."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from contracts.subjects import WorkClass
from tests.drill.checker import Verdict, check_commands, check_work
from tests.drill.client_commands import API, CommandSender, Writer
from tests.drill.result import DrillConfig, DrillResult
from tests.drill.work_generator import ACTOR, LogObserver, WorkGenerator


@dataclass
class Load:
    """The simulated users: writers of data sets, and a generator of jobs and tagging runs."""

    config: DrillConfig
    sender: CommandSender
    writers: list[Writer]
    generator: WorkGenerator
    observer: LogObserver

    @classmethod
    def create(cls, config: DrillConfig, http: httpx.AsyncClient, observer: LogObserver) -> "Load":
        rng = random.Random(config.seed)
        sender = CommandSender(http, random.Random(rng.random()))
        pause = config.seconds * config.writers / max(config.writes, 1) / 3
        writers = [Writer(f"w{number}", sender, random.Random(rng.random()), pause) for number in range(config.writers)]
        datasets = [writer.dataset for writer in writers]
        generator = WorkGenerator(sender, observer, datasets, random.Random(rng.random()), config.jobs)
        return cls(config, sender, writers, generator, observer)

    async def run(self, faults_remain: Callable[[], bool]) -> None:
        """Until no faults remain and the required minimum of writes and jobs is reached."""

        def writers_continue() -> bool:
            acknowledged = sum(command.sequence is not None for command in self.sender.commands)
            return faults_remain() or acknowledged < self.config.writes

        async with asyncio.TaskGroup() as tasks:
            for writer in self.writers:
                tasks.create_task(writer.run(writers_continue), name=writer.name)
            tasks.create_task(self.generator.run(faults_remain), name="generator")

    def is_busy(self, target: str) -> bool:
        """Whether this target has unfinished work right now; a core service has while a request is unanswered."""
        match target:
            case "trainer" | "engine":
                return self.observer.is_busy("train")
            case "tagger":
                return self.observer.is_busy("tag")
            case _:
                return self.sender.in_flight > 0

    async def compare_images(self, http: httpx.AsyncClient) -> list[str]:
        """Images whose tags or caption differ from the last acknowledged ones."""
        differences: list[str] = []
        for writer in self.writers:
            for image in set(writer.images) - writer.uncertain_images:
                current = (await http.get(f"{API}/images/{image}")).raise_for_status().json()
                tags = {tag["tag"] for tag in current["tags"] if tag["tag"].startswith(f"{writer.name}-")}
                if tags != {writer.tags.get(image, "")} - {""}:
                    differences.append(f"image {image} has the tags {tags}, not {writer.tags.get(image)}")
                if image in writer.captions and current["caption"] != writer.captions[image]:
                    differences.append(
                        f"image {image} has the caption {current['caption']!r}, not {writer.captions[image]!r}"
                    )
        return differences

    def abandon(self, lost: set[str]) -> None:
        """Edit these images no more: a key or a blob of theirs is lost for good."""
        for writer in self.writers:
            writer.images = [image for image in writer.images if image not in lost]

    def check(self, result: DrillResult) -> None:
        """Fill in the outcome of everything that was requested, also after a drill that ended early."""
        observer, generator, is_whole = self.observer, self.generator, not result.ended_early
        commits = [one for one in observer.commits if one.sequence not in result.forged.sequences]
        result.commits = len(observer.commits)
        result.commands = check_commands(
            self.sender.commands, commits, ACTOR, is_whole=is_whole, given_up=result.losses.keys
        )
        result.server_errors = self.sender.server_errors
        lost = result.losses.affected(observer.commits)
        excused = {one for one in generator.requested if lost & {one, observer.datasets.get(one, "")}}

        def check(work_class: WorkClass) -> Verdict:
            requested = [one for one in generator.requested if observer.work_classes[one] == work_class]
            return check_work(requested, observer, generator.cancelled, excused=excused, is_whole=is_whole)

        result.jobs, result.runs = check("train"), check("tag")
