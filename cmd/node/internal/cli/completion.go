package cli

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/parley-mesh/parley/cmd/node/internal/control"
	"github.com/urfave/cli/v2"
)

func (p *program) completionCommand() *cli.Command {
	shells := map[string]func() (string, error){
		"bash":       func() (string, error) { return bashCompletion, nil },
		"zsh":        func() (string, error) { return zshCompletion, nil },
		"fish":       func() (string, error) { return p.app.ToFishCompletion() },
		"powershell": func() (string, error) { return powershellCompletion, nil },
	}
	return &cli.Command{
		Name: "completion", Category: "Program", ArgsUsage: "bash|zsh|fish|powershell",
		Usage:       "print a script that teaches a shell to complete parley's arguments",
		Description: `Verbs, flags, and where a node is wanted, the names of the nodes.`,
		CustomHelpTemplate: `
$ source <(parley completion bash)
$ parley completion bash > /etc/bash_completion.d/parley
$ source <(parley completion zsh)
$ parley completion fish > ~/.config/fish/completions/parley.fish
PS> parley completion powershell | Out-String | Invoke-Expression`,
		BashComplete: func(*cli.Context) { p.write("bash\nzsh\nfish\npowershell\n") },
		Action: p.verb("completion", 1, 1, func(c *call) error {
			script, ok := shells[c.Args().First()]
			if !ok {
				return usage("there is no completion for %s; there is bash, zsh, fish and powershell", quote(c.Args().First()))
			}
			s, err := script()
			if err != nil {
				return err
			}
			_, err = c.Stdout.Write([]byte(s))
			return err
		}),
	}
}

// completeNodes completes the name of a node, as the local agent knows them, or
// a flag. It says nothing when there is no agent to ask.
func (p *program) completeNodes(c *cli.Context) {
	if len(os.Args) > 2 && strings.HasPrefix(os.Args[len(os.Args)-2], "-") || c.NArg() > 0 {
		cli.DefaultCompleteWithFlags(c.Command)(c)
		return
	}
	env := func(name string) string { v, _ := p.env(name); return v }
	path, err := control.Choose(env("PARLEY_SOCKET"), env("PARLEY_AGENT"))
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(c.Context, time.Second)
	defer cancel()
	a := control.NewClient(path)
	defer a.Close()
	members, err := a.Members(ctx)
	if err != nil {
		return
	}
	for _, m := range members {
		p.write(m.Name + "\n")
	}
}

const bashCompletion = `# parley completion for bash
_parley_complete() {
  local cur words
  COMPREPLY=()
  cur="${COMP_WORDS[COMP_CWORD]}"
  words=("${COMP_WORDS[@]:0:$COMP_CWORD}")
  if [[ "$cur" == -* ]]; then
    words+=("$cur")
  fi
  COMPREPLY=($(compgen -W "$("${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$cur"))
}
complete -o bashdefault -o default -F _parley_complete parley
`

const zshCompletion = `#compdef parley
# parley completion for zsh
_parley() {
  local -a opts
  local cur="${words[-1]}"
  if [[ "$cur" == -* ]]; then
    opts=("${(@f)$(${words[@]:0:#words[@]-1} ${cur} --generate-bash-completion 2>/dev/null)}")
  else
    opts=("${(@f)$(${words[@]:0:#words[@]-1} --generate-bash-completion 2>/dev/null)}")
  fi
  if [[ "${opts[1]}" != "" ]]; then
    compadd -- "${opts[@]}"
  else
    _files
  fi
}
compdef _parley parley
`

const powershellCompletion = `# parley completion for PowerShell
Register-ArgumentCompleter -Native -CommandName parley -ScriptBlock {
  param($wordToComplete, $commandAst, $cursorPosition)
  $words = @($commandAst.CommandElements | ForEach-Object { $_.ToString() })
  if ($wordToComplete -ne "" -and -not $wordToComplete.StartsWith("-")) {
    $words = $words[0..($words.Count - 2)]
  }
  $rest = @($words | Select-Object -Skip 1) + "--generate-bash-completion"
  & $words[0] @rest 2>$null | Where-Object { $_ -like "$wordToComplete*" } | ForEach-Object {
    [System.Management.Automation.CompletionResult]::new($_, $_, 'ParameterValue', $_)
  }
}
`
