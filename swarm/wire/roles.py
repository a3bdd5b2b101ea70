"""What somebody with an invitation may ask: what a client needs to chat. All else is for members, who hold the key."""

from __future__ import annotations

FOR_CLIENTS = {
    *(f"/swarm.v1.SwarmService/{name}" for name in ("GetPlan", "WatchPlan", "GetAssets", "GetStatus", "ReportFailure")),
    *(f"/swarm.v1.StageService/{name}" for name in ("Open", "Close", "Submit", "Listen", "WholeRow", "Release", "Ping")),
    "/swarm.v1.WorkerService/Status",
    "/swarm.v1.TextService/Converse",
}
