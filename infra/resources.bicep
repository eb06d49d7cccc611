// All resources of one environment, and who may use which.

import { administratorPrincipal, queueNames, workerApp } from 'types.bicep'
import { sizes } from 'sizes.bicep'

param tags object
param location string
@description('How the names of all resources begin.')
param prefix string
param administrator administratorPrincipal
param size string
param jobsQueue string
param taskQueues queueNames
param workers workerApp[]
param privateNetwork bool
param migratingAddress string
param alertEmail string
param retentionDays int
param settings object

var chosen = sizes[size]
var logicalQueues = map(items(taskQueues), queue => queue.key)
// One function per queue that an app reads; a platform or standalone app keeps the dead letters of all queues, too.
var deadLetterFunctions = length(logicalQueues) + 1
var readsTasks = empty(workers)
var firstApp = {
  service: 'app'
  mode: readsTasks ? 'standalone' : 'platform'
  queues: readsTasks ? logicalQueues : []
  queueFunctions: 1 + deadLetterFunctions + (readsTasks ? length(logicalQueues) : 0)
  instanceMemory: chosen.instanceMemory
  maximumInstances: chosen.maximumInstances
}
var workerApps = map(workers, worker => {
  service: worker.service
  mode: 'worker'
  queues: worker.queues
  queueFunctions: length(worker.queues)
  instanceMemory: worker.?instanceMemory ?? chosen.instanceMemory
  maximumInstances: worker.?maximumInstances ?? chosen.maximumInstances
})
var apps = concat([firstApp], workerApps)
// An identity per app. Its name is its role in PostgreSQL.
var identityNames = map(apps, app => '${prefix}-${app.service}')

resource identities 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = [
  for name in identityNames: {
    name: name
    location: location
    tags: tags
  }
]

module network 'network.bicep' = if (privateNetwork) {
  name: 'network'
  params: { tags: tags, location: location, prefix: prefix }
}

module monitoring 'monitoring.bicep' = {
  name: 'monitoring'
  params: {
    tags: tags
    location: location
    prefix: prefix
    retentionDays: chosen.logDays
    publisherIds: [for (name, at) in identityNames: identities[at].properties.principalId]
  }
}

module storage 'storage.bicep' = {
  name: 'storage'
  params: {
    tags: tags
    location: location
    name: replace('${prefix}st', '-', '')
    containers: map(apps, app => 'code-${app.service}')
    ownerIds: [for (name, at) in identityNames: identities[at].properties.principalId]
    privateSubnetId: network.?outputs.endpointsSubnetId ?? ''
    networkId: network.?outputs.networkId ?? ''
  }
}

module serviceBus 'service_bus.bicep' = {
  name: 'service-bus'
  params: {
    tags: tags
    location: location
    name: '${prefix}-bus'
    // A namespace has private endpoints in Premium alone.
    sku: privateNetwork ? 'Premium' : chosen.serviceBus
    jobsQueue: jobsQueue
    taskQueues: taskQueues
    ownerId: identities[0].properties.principalId
    workerIds: [for (worker, at) in workers: { id: identities[at + 1].properties.principalId, queues: worker.queues }]
    privateSubnetId: network.?outputs.endpointsSubnetId ?? ''
    networkId: network.?outputs.networkId ?? ''
  }
}

module database 'database.bicep' = {
  name: 'database'
  params: {
    tags: tags
    location: location
    name: '${prefix}-db'
    product: chosen.database
    administrator: administrator
    migratingAddress: migratingAddress
    privateSubnetId: network.?outputs.endpointsSubnetId ?? ''
    networkId: network.?outputs.networkId ?? ''
  }
}

module functionApps 'app.bicep' = [
  for (app, at) in apps: {
    name: 'app-${app.service}'
    params: {
      tags: tags
      location: location
      name: '${prefix}-${app.service}'
      app: app
      identityName: identityNames[at]
      storageName: storage.outputs.name
      insightsName: monitoring.outputs.insightsName
      databaseHost: database.outputs.host
      namespaceHost: serviceBus.outputs.host
      jobsQueue: jobsQueue
      taskQueues: taskQueues
      subnetId: network.?outputs.appsSubnetId ?? ''
      retentionDays: retentionDays
      settings: settings
    }
    dependsOn: [identities]
  }
]

module alerts 'alerts.bicep' = if (!empty(alertEmail)) {
  name: 'alerts'
  params: {
    tags: tags
    prefix: prefix
    email: alertEmail
    databaseId: database.outputs.id
    namespaceId: serviceBus.outputs.id
    appId: functionApps[0].outputs.id
  }
}

output databaseHost string = database.outputs.host
output databaseRoles string = join(identityNames, ' ')
output url string = functionApps[0].outputs.url
