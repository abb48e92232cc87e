# Completions of ringroom for bash, made by `ringroom completions bash`.
_ringroom() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local command= at words
    COMPREPLY=()
    for ((at = 1; at < COMP_CWORD; at++)); do
        case ${COMP_WORDS[at]} in
            serve|token|client|health|log|config|tune|completions|help) command=${COMP_WORDS[at]}; break ;;
        esac
    done
    case $command:$previous in
        serve:--config|:--config) COMPREPLY=($(compgen -f -- "$current")); return ;;
        serve:--profile|:--profile) COMPREPLY=($(compgen -f -W 'default latency throughput density bench' -- "$current")); return ;;
        serve:--listen|:--listen) return ;;
        serve:--ops|:--ops) return ;;
        serve:--shards|:--shards) return ;;
        token:--sub) return ;;
        token:--tenant) return ;;
        token:--role) return ;;
        token:--name) return ;;
        token:--ttl) return ;;
        client:--url) return ;;
        client:--ca) return ;;
        client:--token) return ;;
        client:--join) return ;;
        client:--exit-after) return ;;
        health:--ops) return ;;
        log:--ops) return ;;
        config:--config) COMPREPLY=($(compgen -f -- "$current")); return ;;
        config:--profile) COMPREPLY=($(compgen -f -W 'default latency throughput density bench' -- "$current")); return ;;
        config:--listen) return ;;
        config:--ops) return ;;
        config:--shards) return ;;
        tune:--connections) return ;;
        tune:--root) COMPREPLY=($(compgen -d -- "$current")); return ;;
        tune:--config) COMPREPLY=($(compgen -f -- "$current")); return ;;
        tune:--profile) COMPREPLY=($(compgen -f -W 'default latency throughput density bench' -- "$current")); return ;;
        tune:--listen) return ;;
        tune:--ops) return ;;
        tune:--shards) return ;;
    esac
    case $command in
        serve) words='--config --profile --listen --ops --shards --dev --help' ;;
        token) words='--sub --tenant --role --name --ttl --help' ;;
        client) words='--url --ca --token --join --exit-after --help' ;;
        health) words='--ready --ops --help' ;;
        log) words='off error warn info debug trace --ops --help' ;;
        config) words='check show sample --config --profile --listen --ops --shards --dev --help' ;;
        tune) words='check apply undo --connections --json --yes --root --config --profile --listen --ops --shards --dev --help' ;;
        completions) words='bash zsh fish --help' ;;
        help) words='serve token client health log config tune completions' ;;
        *) words='serve token client health log config tune completions help --version --config --profile --listen --ops --shards --dev --help' ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    if [[ $command == config && ${#COMPREPLY[@]} == 0 ]]; then COMPREPLY=($(compgen -f -- "$current")); fi
}
complete -o filenames -F _ringroom ringroom
