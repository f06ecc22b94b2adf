package main

import (
	"context"
	"io"

	"rlr/internal/cli"
	"rlr/lab"
)

// labCommands are the actions of `rlr lab`, between the command's types and the lab's.
func labCommands() *cli.Lab {
	return &cli.Lab{
		List: labList,
		Run: func(ctx context.Context, r cli.LabRun) (bool, error) {
			result, err := lab.Run(ctx, r.Name, labOptions(r))
			return result.OK, err
		},
		Up: func(ctx context.Context, r cli.LabRun) (cli.LabState, error) {
			st, err := lab.Up(ctx, r.Name, labOptions(r))
			out := cli.LabState{Scenario: st.Scenario, Dir: st.Dir, Links: st.Links, Routers: []cli.LabRouter{}}
			for _, p := range st.Routers {
				out.Routers = append(out.Routers, cli.LabRouter(p))
			}
			return out, err
		},
		Down:  lab.Down,
		Cut:   lab.Cut,
		Heal:  lab.Heal,
		Relay: lab.Relay,
		Exec:  lab.ExecUnprivileged,
	}
}

func labList() []cli.LabScenario {
	var out []cli.LabScenario
	for _, s := range lab.List() {
		row := cli.LabScenario{Name: s.Name, Summary: s.Summary, Routers: s.Routers, Links: s.Links, Running: s.Running}
		for _, c := range s.Checks {
			row.Checks = append(row.Checks, c.Name)
		}
		out = append(out, row)
	}
	return out
}

func labOptions(r cli.LabRun) lab.Options {
	return lab.Options{
		Dataplane: r.Dataplane, Sabotage: r.Sabotage, JSON: r.JSON, Out: r.Out, Progress: labScreen(r.Progress),
	}
}

func labScreen(w io.Writer) lab.Screen {
	return lab.Screen{W: w, Terminal: cli.Terminal(w), Colour: cli.Coloured(w)}
}
